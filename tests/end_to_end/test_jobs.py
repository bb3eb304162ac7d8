"""Jobs from their first sign to their end, on a real machine with a runner double."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

from miglet.formats import parse_rfc3339
from tests.cases import slow_except
from tests.end_to_end.conftest import HELD, IDLE, job
from tests.support import eventually

pytestmark = pytest.mark.units


def test_a_job_from_boot_to_the_orderly_end(machine):
    vm = machine(job(name="build", seconds=0.5))
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert vm.types() == [
        "VMStarted",
        "RunnerRegistered",
        "JobStarted",
        "JobCompleted",
        "VMShuttingDown",
        "VMStopped",
    ]
    assert [each["sequence"] for each in vm.events()] == [1, 2, 3, 4, 5, 6]
    assert len({each["id"] for each in vm.events()}) == 6
    completed = vm.events("JobCompleted")[0]
    assert completed["data"]["result"] == "succeeded"
    assert completed["data"]["cause"] == "success"
    assert completed["data"]["exit_code"] == 0
    assert 0.4 < completed["data"]["duration_seconds"] < 10
    states = [each["miglet_state"] for each in vm.controller.heartbeats(vm.vm)]
    assert "idle" in states
    assert "job_running" in states


def test_the_job_is_known_by_its_numbers(machine):
    vm = machine(job(name="build"))
    vm.agent.start()
    vm.agent.wait()
    started, completed = vm.events("JobStarted")[0], vm.events("JobCompleted")[0]
    for event in (started, completed):
        assert event["job_id"].isdigit()
        assert event["run_id"].isdigit()
        assert len(event["trace_id"]) == 32
    assert started["trace_id"] == completed["trace_id"]
    assert started["trace_id"] != vm.events("VMStarted")[0]["trace_id"]
    for key in ("repository", "workflow", "ref", "commit", "run_attempt"):
        assert started["data"][key]
        assert started["data"][key] == completed["data"][key]
    assert started["data"]["actor"]
    assert started["data"]["name"] == "build"


#: What is said of each of the runner's results.
RESULTS = {
    "Succeeded": ("succeeded", "success"),
    "SucceededWithIssues": ("succeeded", "success"),
    "Failed": ("failed", "failure"),
    "Canceled": ("cancelled", "cancelled"),
}


@pytest.mark.parametrize("result", slow_except(RESULTS, "Failed", "Canceled"))
def test_the_result_is_the_one_that_the_runner_reported(machine, result):
    vm = machine(job(result))
    vm.agent.start()
    assert vm.agent.wait() == 0
    data = vm.events("JobCompleted")[0]["data"]
    assert (data["result"], data["cause"]) == RESULTS[result]


def test_a_job_without_hooks_and_logs_is_announced_within_two_seconds(machine):
    off = {"job_hooks": False, "diag_logs": False, "perflog": False}
    vm = machine({**HELD, "name": "lonely"}, features=off)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    started = vm.event("JobStarted", seconds=6)
    (printed,) = vm.double.truth("running_job")
    assert started["received_mono"] - printed["mono"] < 2.6
    assert started["data"]["name"] == "lonely"
    assert started["data"]["source"] == "output"
    vm.double.finish_step()
    assert vm.agent.wait() == 0


def test_a_job_outlives_its_listener_and_its_result_is_the_workers(machine):
    vm = busy(machine)
    listener = psutil.Process(vm.agent.status()["runner"]["pid"])
    tree = [listener, *listener.children(recursive=True)]
    listener.kill()
    eventually(lambda: not listener.is_running(), what="the Listener's end")
    vm.double.finish_step()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"], data["exit_code"]) == (
        "succeeded",
        "success",
        0,
    )
    assert "the listener ended before its worker" in data["evidence"]
    assert [each["result"] for each in vm.double.truth("reported")] == ["Succeeded"]
    assert vm.agent.wait() == 0
    assert not psutil.wait_procs(tree, timeout=5)[1], "the worker or the step lives"


def test_an_orphaned_job_is_adopted_by_the_next_miglet(machine):
    vm = busy(machine, result="Failed")
    listener = psutil.Process(vm.agent.status()["runner"]["pid"])
    listener.kill()
    vm.event("RunnerCrashed")
    vm.agent.kill()
    vm.agent.start()
    eventually(vm.agent.workers, what="the next MIGlet")
    vm.double.finish_step(1)
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"], data["exit_code"]) == (
        "failed",
        "failure",
        102,
    )
    assert vm.agent.wait() == 0
    assert vm.types().count("JobCompleted") == vm.types().count("RunnerCrashed") == 1


def test_an_orphaned_job_that_ends_while_nobody_watches_has_its_true_result(machine):
    vm = busy(machine)
    shim = psutil.Process(vm.agent.status()["runner"]["pid"]).parent()
    shim.children()[0].kill()
    vm.event("RunnerCrashed")
    vm.agent.kill()
    vm.double.finish_step()
    eventually(lambda: not shim.is_running(), what="the end of the run")
    vm.agent.start()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["exit_code"]) == ("succeeded", 0)
    assert vm.agent.wait() == 0
    assert vm.types().count("JobCompleted") == 1


def busy(machine, **more):
    """A machine in the middle of a job's step."""
    vm = machine({**HELD, **more})
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    eventually(lambda: vm.double.truth("step_start"), what="the step")
    return vm


SUCCESS = "2026-01-01 00:00:00Z: Job a completed with result: Succeeded"


@pytest.mark.parametrize(
    "name",
    [
        f"a\nb\n{SUCCESS}",
        "a\n[2026-01-01 00:00:00Z INFO JobDispatcher] Worker finished for job 1."
        " Code: 100\n[2026-01-01 00:00:00Z INFO JobDispatcher] finish job request"
        " for job 1 with result: Succeeded",
    ],
)
def test_a_job_name_that_looks_like_a_result_ends_nothing(machine, name):
    vm = busy(machine, name=name, result="Failed")
    assert not vm.events("JobCompleted")
    assert vm.agent.state() == "job_running"
    vm.double.finish_step(1)
    completed = vm.event("JobCompleted")
    data = completed["data"]
    assert (data["result"], data["exit_code"]) == ("failed", 102)
    assert not vm.double.truth("signal")
    assert vm.agent.wait() == 0


#: Bash: sets `worker` and `listener` to the pids above a step.
FIND_RUNNER = """
    above() { awk '/^PPid/ {print $2}' /proc/$1/status; }
    worker=$$
    until [ "$(cat /proc/$worker/comm)" = Runner.Worker ]; do
        worker=$(above $worker)
    done
    listener=$(above $worker)
"""


def test_a_step_that_writes_a_result_for_the_listener_ends_nothing(machine):
    script = f"""{FIND_RUNNER}
        echo '{SUCCESS}' >/proc/$listener/fd/1
        echo '{SUCCESS}' >>"$(echo ../../../_diag/Runner_*.log)"
        sleep 2
        exit 1
    """
    vm = machine(job(script=script))
    vm.agent.start()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"], data["exit_code"]) == (
        "failed",
        "failure",
        102,
    )
    (step_exit,) = vm.double.truth("step_exit")
    assert parse_rfc3339(data["finished_at"]) > step_exit["at"]
    assert any("ignored" in each for each in data["evidence"])
    assert vm.agent.wait() == 0


def test_a_worker_that_never_begins_is_killed_so_that_the_job_can_run_again(machine):
    vm = machine({"scenario": "worker_hangs"}, runner={"ghost_timeout": "500ms"})
    vm.agent.start()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"], data["exit_code"]) == (
        "failed",
        "worker_stuck",
        137,
    )
    assert vm.agent.wait() == 0
    assert [each["code"] for each in vm.double.truth("worker_gone")] == [137]


def test_a_worker_that_never_ends_is_killed_after_the_finish_timeout(machine):
    plan = {"scenario": "completion_hangs", "seconds": 0.1}
    vm = machine(plan, runner={"finish_timeout": "500ms"})
    vm.agent.start()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"]) == ("failed", "worker_stuck")
    assert vm.agent.wait() == 0


def test_a_result_that_the_service_does_not_take_is_reported_as_such(machine):
    vm = machine({"scenario": "completion_fails", "seconds": 0.1})
    vm.agent.start()
    data = vm.event("JobCompleted", 30)["data"]
    assert (data["result"], data["cause"], data["exit_code"]) == (
        "failed",
        "result_not_reported",
        1,
    )
    assert vm.agent.wait() == 0


def test_long_lines_and_a_killed_runner_do_not_keep_a_job_from_being_reported(machine):
    script = f"""{FIND_RUNNER}
        for line in {{1..20}}; do
            printf 'x%.0s' {{1..8000}}
            echo
        done >/proc/$listener/fd/1
        echo '{SUCCESS}' >/proc/$listener/fd/1
        kill -KILL $listener $worker
    """
    vm = machine(job(script=script))
    vm.agent.start()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"]) == ("unknown", "runner_crash")
    assert len(vm.events("RunnerCrashed")) == 1
    assert vm.agent.wait() == 0
    assert "BadMessage" not in vm.agent.log()


def test_sparse_logs_of_terabytes_do_not_keep_a_job_from_being_reported(machine):
    script = """
        stamp=$(date -u +%Y%m%d-%H%M%S)
        truncate -s 8T "../../../_diag/Worker_$stamp-utc.log"
        truncate -s 8T ../../../_diag/Runner_*.log
        truncate -s 8T "$RUNNER_PERFLOG/Worker.perf"
    """
    vm = machine(job(script=script))
    vm.agent.start()
    data = vm.event("JobCompleted", 20)["data"]
    assert (data["result"], data["cause"]) == ("succeeded", "success")
    assert vm.agent.wait() == 0


def test_a_job_that_moves_its_runner_away_has_a_result(machine):
    vm = busy(machine)
    eventually(lambda: vm.double.truth("step_waits"), what="the step at rest")
    os.rename(vm.double.root, vm.double.root.with_name("gone"))
    os.rename(vm.double.root.with_name("gone"), vm.double.root)
    vm.double.finish_step()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"]) == ("succeeded", "success")
    assert vm.agent.wait() == 0


def test_a_worker_that_is_killed_is_no_failure_of_the_job(machine):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    (started,) = eventually(lambda: vm.double.truth("worker_start"))
    eventually(lambda: vm.double.truth("step_start"))
    os.kill(started["pid"], signal.SIGKILL)
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"]) == ("failed", "worker_crash")
    assert data["exit_code"] == 137
    assert vm.agent.wait() == 0


def test_what_the_job_used_is_reported(machine):
    work = {"burn_cpu": 0.5, "allocate_mb": 60, "write_mb": 8, "seconds": 0.8}
    vm = machine(job(**work))
    vm.agent.start()
    vm.agent.wait()
    usage = vm.events("JobCompleted")[0]["data"]["resource_usage"]
    assert 0.4 < usage["cpu_seconds"] < 5
    assert usage["max_memory_bytes"] > 60e6
    assert usage["io_write_bytes"] >= 0


def test_a_process_that_the_job_left_is_gone_with_the_runner(machine):
    vm = machine(job(leave_process="untracked"))
    vm.agent.start()
    assert vm.agent.wait() == 0
    root = str(vm.double.root)
    left = [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if root in " ".join(process.info["cmdline"] or []) + (process.info["cwd"] or "")
    ]
    assert left == []


def test_after_its_job_the_machine_can_register_again(machine):
    vm = machine(job(), job("Failed"), IDLE, runner={"after_job": "register"})
    vm.agent.start()
    vm.event("RunnerRegistered", count=3, seconds=30)
    names = [each["data"]["runner_name"] for each in vm.events("RunnerRegistered")]
    assert len(set(names)) == 3
    results = [each["data"]["result"] for each in vm.events("JobCompleted")]
    assert results == ["succeeded", "failed"]
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0


def test_a_running_job_is_in_the_heartbeats(machine):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    beat = vm.event("JobHeartbeat", seconds=10)
    assert beat["sequence"] is None
    assert beat["data"]["repository"]
    assert beat["data"]["elapsed_seconds"] > 0
    status = vm.agent.status()
    assert status["job"]["job_id"] == beat["job_id"]
    vm.double.finish_step()
    vm.agent.wait()


def test_no_secret_leaves_the_place_where_it_belongs(machine):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    secrets = [vm.controller.token_path.read_text().strip(), "AREGISTRATIONTOKEN"]
    seen = [vm.agent.log(), json.dumps(vm.events()), vm.agent.ctl("config").stdout]
    listener = psutil.Process(vm.agent.status()["runner"]["pid"])
    for process in [listener, *listener.parents(), *listener.children(recursive=True)]:
        seen.append(" ".join(process.cmdline()))
        if process.pid != 1:
            seen.append(" ".join(f"{k}={v}" for k, v in process.environ().items()))
    for folder in (vm.agent.folder / "state", vm.agent.folder / "run"):
        for path in folder.rglob("*"):
            if path.is_file():
                seen.append(path.read_bytes().decode("latin-1"))
    for secret in secrets:
        assert not [text[:100] for text in seen if secret in text]
    vm.double.finish_step()
    vm.agent.wait()
