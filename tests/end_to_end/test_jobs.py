"""Jobs from their first sign to their end, on a real machine with a runner double."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

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
    ]
    assert [each["sequence"] for each in vm.events()] == [1, 2, 3, 4, 5]
    assert len({each["id"] for each in vm.events()}) == 5
    completed = vm.events("JobCompleted")[0]
    assert completed["data"]["result"] == "succeeded"
    assert completed["data"]["cause"] == "success"
    assert completed["data"]["exit_code"] in (0, 100)
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


@pytest.mark.parametrize(
    ("result", "told", "cause"),
    [
        ("Succeeded", "succeeded", "success"),
        ("SucceededWithIssues", "succeeded", "success"),
        ("Failed", "failed", "failure"),
        ("Canceled", "cancelled", "cancelled"),
    ],
)
def test_the_result_is_the_one_that_the_runner_told(machine, result, told, cause):
    vm = machine(job(result))
    vm.agent.start()
    assert vm.agent.wait() == 0
    data = vm.events("JobCompleted")[0]["data"]
    assert (data["result"], data["cause"]) == (told, cause)


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


def test_a_listener_that_is_killed_takes_its_job_with_it(machine):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    eventually(lambda: vm.double.truth("step_start"), what="the step")
    listener = psutil.Process(vm.agent.status()["runner"]["pid"])
    tree = [listener, *listener.children(recursive=True)]
    listener.kill()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"]) == ("unknown", "runner_crash")
    assert data["exit_code"] == 137
    crash = vm.events("RunnerCrashed")[0]["data"]
    assert crash["signal"] == 9
    assert any("Running job" in line for line in crash["last_lines"])
    assert vm.agent.wait() == 0
    assert not psutil.wait_procs(tree, timeout=5)[1], "the worker or the step lives"


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
