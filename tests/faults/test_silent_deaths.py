"""Runners that die, or live on uselessly, without saying so.

Each is reported with its cause, in JobCompleted, RunnerCrashed or Error, and with what
there is to show for it; and none of them costs the machine.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.conftest import HELD, IDLE, job
from tests.faults import invariants
from tests.faults.cgroups import as_root, group_of
from tests.support import eventually

MEBIBYTE = 1024 * 1024


def errors(vm) -> dict[str, str]:
    """The messages of the Error events by their codes."""
    found = [each["data"] for each in vm.events("Error")]
    return {each["code"]: each["message"] for each in found}


def completed(vm) -> tuple[str, str]:
    data = vm.event("JobCompleted")["data"]
    assert data["evidence"]
    return data["result"], data["cause"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "code", "evidence"),
    [
        ("ghost", "ghost", "Skipping message Job"),
        ("deprecated", "version_deprecated", "is deprecated and cannot receive"),
        ("session_conflict", "session_conflict", "listener exited with 5"),
        ("registration_deleted", "registration_gone", "registration gone"),
        ("runner_unknown", "registration_gone", "registration gone"),
        ("deleted_while_idle", "registration_gone", "listener exited with 0"),
        ("token_revoked", "registration_gone", "listener exited with 0"),
    ],
)
def test_a_runner_that_is_of_no_use_is_replaced_and_reported(
    machine, scenario, code, evidence
):
    vm = machine(
        {"scenario": scenario}, job(), plan={"scale": 0.002}, runner={"max_restarts": 3}
    )
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert completed(vm) == ("succeeded", "success")
    reported = errors(vm)
    assert evidence in reported[code], reported
    invariants.one_listener_at_a_time(vm.double.truth())
    invariants.whole(vm.events())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "last_words"),
    [
        ("crash_loop", "Resource temporarily unavailable"),
        ("not_authorised", "not authorized"),
        ("no_work_folder", "work directory"),
        ("clock_skew", "clock may be out of sync"),
    ],
)
def test_a_runner_that_crashes_is_reported_with_its_last_words(
    machine, scenario, last_words
):
    settings = {"max_restarts": 3, "ready_timeout": "3s"}
    vm = machine({"scenario": scenario}, job(), runner=settings)
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert completed(vm) == ("succeeded", "success")
    crash = vm.events("RunnerCrashed")[0]["data"]
    assert crash["will_retry"]
    assert any(last_words in line for line in crash["last_lines"])


@pytest.mark.slow
def test_a_runner_that_never_works_is_given_up(machine):
    vm = machine({"scenario": "crash_loop"}, runner={"max_restarts": 2})
    vm.agent.start()
    assert vm.agent.wait() == 69
    assert len(vm.double.truth("listener_start")) == 3
    last = vm.events("Error")[-1]["data"]
    assert "end 3 in a row" in last["message"]
    # The service manager starts MIGlet again: the machine has not ended.
    assert not {"VMShuttingDown", "VMStopped"} & set(vm.types())


@pytest.mark.slow
def test_a_version_that_github_refuses_is_reported_once_and_tried_again(machine):
    """For ten minutes, whatever runner.max_restarts says: GitHub has erred before."""
    vm = machine({"scenario": "deprecated"}, runner={"max_restarts": 1})
    vm.agent.start()
    eventually(lambda: len(vm.double.truth("listener_start")) >= 4)
    errors = [each["data"] for each in vm.events("Error")]
    assert [each["code"] for each in errors] == ["version_deprecated"]
    assert "current release" in errors[0]["hint"]
    assert len(vm.double.truth("config_start")) == 1
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0
    invariants.one_listener_at_a_time(vm.double.truth())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "result", "cause"),
    [
        ("worker_killed", "failed", "worker_crash"),
        ("job_lost", "unknown", "runner_crash"),
        ("setup_failed", "failed", "setup_failed"),
        ("abandoned", "abandoned", "lock_lost"),
        ("server_cancel", "cancelled", "cancelled"),
        ("deleted_while_busy", "cancelled", "registration_gone"),
        ("worker_hangs", "failed", "worker_stuck"),
        ("job_cancelled_hard", "cancelled", "cancelled"),
    ],
)
def test_a_job_that_dies_has_its_cause(machine, scenario, result, cause):
    vm = machine({"scenario": scenario})
    vm.agent.start()
    assert completed(vm) == (result, cause)
    assert vm.agent.wait() == 0
    assert vm.types().count("JobCompleted") == 1
    crashes = vm.events("RunnerCrashed")
    assert bool(crashes) == cause.endswith("_crash")
    assert all(crash["data"]["last_lines"] for crash in crashes)


def busy_with(machine, **work):
    """A machine with a Listener that gets its job when it is released."""
    vm = machine({"scenario": "job", "hold_job": True, **work})
    vm.agent.start()
    vm.event("RunnerRegistered")
    return vm, vm.agent.status()["runner"]["pid"]


@as_root
@pytest.mark.slow
def test_a_job_that_eats_all_memory_is_reported_as_such(machine):
    vm, listener = busy_with(machine, allocate_mb=500, seconds=1)
    with group_of("memory") as group:
        group.limit(150 * MEBIBYTE)
        group.take(listener)
        vm.double.release_job()
        assert completed(vm)[1] in ("oom_job", "oom_runner")
        data = vm.events("JobCompleted")[0]["data"]
        assert any("out-of-memory" in reason for reason in data["evidence"])
        assert vm.agent.wait() == 0


@pytest.mark.slow
def test_a_job_that_outlives_its_listener_too_long_ends_unknown(machine):
    vm = machine({"scenario": "listener_killed"}, runner={"orphan_timeout": "1s"})
    vm.agent.start()
    assert vm.event("RunnerCrashed")["data"]["will_retry"] is False
    assert completed(vm) == ("unknown", "runner_crash")
    assert vm.agent.wait() == 0
    assert not vm.double.pids()


@as_root
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["listener", "worker"])
def test_a_runner_that_is_killed_for_memory_is_reported_as_such(machine, victim):
    vm, listener = busy_with(machine, hold_step=True)
    vm.double.release_job()
    vm.event("JobStarted")
    eventually(lambda: vm.double.truth("step_start"), what="the step")
    (worker,) = eventually(lambda: vm.double.truth("worker_start"))
    pid = listener if victim == "listener" else worker["pid"]
    with group_of("memory") as group:
        group.take(pid)
        group.limit(20 * MEBIBYTE)
        starve(group, pid)
        if victim == "worker":
            assert completed(vm) == ("failed", "oom_runner")
        else:
            assert vm.event("RunnerCrashed")["data"]["signal"] == signal.SIGKILL
            vm.double.finish_step()
            assert completed(vm) == ("succeeded", "success")
        assert vm.agent.wait() == 0


def starve(group, pid: int) -> None:
    """Have another process in its group want memory until the kernel kills this one."""
    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    eater = subprocess.Popen(
        ["sh", "-c", "read go; exec tail /dev/zero"], stdin=subprocess.PIPE
    )
    group.take(eater.pid)
    eater.communicate(b"go\n")
    eventually(lambda: not invariants.lives(pid), 10, "the victim's death")


@pytest.mark.slow
def test_a_runner_that_heeds_no_signal_does_not_put_the_end_off(machine):
    vm = machine({"scenario": "ignores_signals"}, shutdown={"grace_period": "1s"})
    vm.agent.start()
    vm.agent.until("idle")
    began = time.monotonic()
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0
    assert time.monotonic() - began < 8
    assert not vm.double.pids()


@pytest.mark.slow
def test_a_job_that_heeds_no_signal_is_killed_after_the_grace_period(machine):
    held = {**HELD, "ignore_signals": True, "ignores": ["INT", "TERM"]}
    vm = machine(held, shutdown={"grace_period": "1s"})
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    vm.order("Shutdown", mode="immediate", reason="rack 7")
    assert completed(vm) == ("cancelled", "shutdown")
    assert vm.agent.wait() == 0
    assert not vm.double.pids()


@pytest.mark.slow
@pytest.mark.parametrize("left", [True, "setsid", "untracked"])
def test_what_a_job_leaves_behind_ends_with_its_runner(machine, left):
    vm = machine(job(leave_process=left))
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert completed(vm) == ("succeeded", "success")
    assert not vm.double.pids()


@pytest.mark.slow
def test_a_registration_that_succeeded_and_timed_out_is_used(machine):
    hang = {"outcome": "hang", "at": "registered", "ignore_signals": True}
    vm = machine(
        job(),
        plan={"config": [hang, {}]},
        github={"org": "octo", "registration_timeout": "1s"},
    )
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert completed(vm) == ("succeeded", "success")
    invariants.one_registration_at_a_time(vm.double.registry()["history"])
    invariants.one_listener_at_a_time(vm.double.truth())


@pytest.mark.slow
def test_a_registration_that_hangs_is_tried_again(machine):
    hang = {"outcome": "hang", "at": "registration"}
    vm = machine(
        job(),
        plan={"config": [hang, {}]},
        github={"org": "octo", "registration_timeout": "1s"},
    )
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert completed(vm) == ("succeeded", "success")
    assert "timed_out" in errors(vm)


@pytest.mark.slow
def test_a_listener_that_never_listens_is_replaced(machine):
    vm = machine({"scenario": "network_error"}, job(), runner={"ready_timeout": "1s"})
    vm.double.replan({"scale": 1.0, "listener": [{"scenario": "network_error"}, job()]})
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert completed(vm) == ("succeeded", "success")


@pytest.mark.slow
def test_a_listener_that_is_stopped_still_lets_the_machine_end(machine):
    vm = machine(IDLE, shutdown={"grace_period": "1s"})
    vm.agent.start()
    vm.agent.until("idle")
    psutil.Process(vm.agent.status()["runner"]["pid"]).suspend()
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0
    assert not vm.double.pids()
