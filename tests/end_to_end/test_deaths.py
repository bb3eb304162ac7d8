"""What dies in between, and what must not be lost by it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time

import pytest

from tests.cases import slow_except
from tests.end_to_end.conftest import HELD, IDLE, job
from tests.support import eventually

WORKERS = ["runner-watcher", "heartbeat-sender", "metrics-sampler", "command-poller"]


def running(machine, **settings):
    """A machine in the middle of a job."""
    vm = machine(HELD, **settings)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    eventually(lambda: vm.double.truth("step_start"), what="the job's step")
    return vm


@pytest.mark.parametrize(
    "name", slow_except(WORKERS, "runner-watcher", "heartbeat-sender")
)
def test_a_worker_that_dies_during_a_job_harms_nothing(machine, name):
    vm = running(machine)
    before = vm.agent.workers()[name]
    os.kill(before.pid, signal.SIGKILL)
    eventually(
        lambda: vm.agent.workers().get(name) not in (None, before), what="a successor"
    )
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    assert vm.types().count("JobStarted") == 1
    assert vm.types().count("JobCompleted") == 1
    assert vm.events("JobCompleted")[0]["data"]["result"] == "succeeded"
    assert not vm.double.truth("signal")


def test_a_new_miglet_adopts_the_job_of_a_killed_one(machine):
    vm = running(machine)
    vm.agent.kill()
    assert not vm.double.truth("step_exit")
    vm.agent.start()
    vm.agent.until("job_running")
    assert vm.agent.status()["runner"]["adopted"]
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    assert vm.types().count("JobStarted") == 1
    assert vm.types().count("RunnerRegistered") == 1
    assert vm.events("JobCompleted")[0]["data"]["result"] == "succeeded"
    sequences = [each["sequence"] for each in vm.events()]
    assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.parametrize("result", slow_except(["Succeeded", "Failed"], "Failed"))
def test_a_job_that_ends_while_nobody_is_there_is_reported_truly(machine, result):
    vm = machine({**HELD, "result": result})
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    vm.agent.kill()
    vm.double.finish_step()
    eventually(lambda: vm.double.truth("listener_exit"), what="the runner's end")
    vm.agent.start()
    assert vm.agent.wait() == 0
    (completed,) = vm.events("JobCompleted")
    assert completed["data"]["result"] == result.lower()
    assert vm.types().count("VMStarted") == 1


def test_a_job_whose_listener_died_while_nobody_was_there_goes_on(machine):
    vm = running(machine)
    pid = vm.agent.status()["runner"]["pid"]
    vm.agent.kill()
    os.kill(pid, signal.SIGKILL)
    vm.agent.start()
    crashed = vm.event("RunnerCrashed")["data"]
    assert (crashed["signal"], crashed["will_retry"]) == (signal.SIGKILL, False)
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    (completed,) = vm.events("JobCompleted")
    assert completed["data"]["result"] == "succeeded"
    assert len(vm.events("RunnerCrashed")) == 1


def test_a_runner_that_died_whole_while_nobody_was_there_is_a_crash(machine):
    vm = running(machine)
    pid = vm.agent.status()["runner"]["pid"]
    (worker,) = vm.double.truth("worker_start")
    vm.agent.kill()
    os.kill(pid, signal.SIGKILL)
    os.kill(worker["pid"], signal.SIGKILL)
    vm.agent.start()
    assert vm.agent.wait() == 0
    (completed,) = vm.events("JobCompleted")
    assert completed["data"]["result"] == "unknown"
    assert completed["data"]["cause"] == "runner_crash"


def test_a_killed_miglet_never_registers_a_second_runner(machine):
    vm = machine(IDLE, plan={"config": {"seconds": 1.0}})
    vm.agent.start()
    eventually(lambda: vm.double.truth("config_start"), what="config.sh")
    vm.agent.kill()
    vm.agent.start()
    vm.agent.until("idle", 20)
    assert len(vm.double.truth("listener_start")) == 1
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0


def test_a_job_of_another_boot_is_completed_as_such(machine):
    vm = running(machine)
    vm.agent.kill()
    vm.double.kill()
    journal = sqlite3.connect(vm.agent.folder / "state" / "journal.db")
    journal.close()
    forge_boot(vm)
    vm.agent.start()
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"]) == ("unknown", "machine_restarted")
    vm.event("VMStarted", count=2)
    vm.agent.signal(signal.SIGTERM)


def forge_boot(vm) -> None:
    """Make the journal one of another boot, as a reboot would."""
    from miglet.journal.journal import Journal

    path = vm.agent.folder / "state" / "journal.db"
    journal = Journal.open([path], "another-boot")
    state = journal.state()
    journal.record(state, [])
    journal.close()


def test_a_second_miglet_leaves_the_first_one_alone(machine):
    vm = machine(IDLE)
    vm.agent.start()
    vm.agent.until("idle")
    first = vm.agent.process
    vm.agent.start()
    assert vm.agent.wait() == 1
    assert "another MIGlet" in vm.agent.log()
    vm.agent.process = first
    assert vm.agent.state() == "idle"


@pytest.mark.slow
def test_a_stopped_parent_does_not_blame_its_workers(machine):
    vm = machine(IDLE)
    vm.agent.start()
    vm.agent.until("idle")
    before = {name: each.pid for name, each in vm.agent.workers().items()}
    vm.agent.signal(signal.SIGSTOP)
    wake = time.monotonic() + 7
    eventually(lambda: time.monotonic() > wake)
    vm.agent.signal(signal.SIGCONT)
    vm.agent.until("idle")
    assert {name: each.pid for name, each in vm.agent.workers().items()} == before


def test_events_survive_a_controller_that_is_away(machine, tmp_path):
    from tests.reference_process import running_controller

    with running_controller(tmp_path) as first:
        port = first.endpoint.rsplit(":", 1)[1]
        vm = machine({**HELD})
        text = vm.agent.config.read_text()
        vm.agent.config.write_text(text.replace(vm.controller.endpoint, first.endpoint))
        vm.controller = first
        vm.agent.start()
        vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.agent.until("job_running")
    vm.double.finish_step()
    eventually(lambda: vm.agent.status()["events"]["pending"] >= 3)
    with running_controller(tmp_path, listen=f"127.0.0.1:{port}") as second:
        vm.controller = second
        vm.event("VMShuttingDown", seconds=20)
        assert vm.agent.wait() == 0
        assert vm.types().count("JobCompleted") == 1
        sequences = [each["sequence"] for each in vm.events()]
        assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.parametrize(
    "number", slow_except([signal.SIGTERM, signal.SIGINT], signal.SIGTERM)
)
def test_a_signal_ends_an_idle_machine_in_order(machine, number):
    vm = machine(IDLE)
    vm.agent.start()
    vm.agent.until("idle")
    vm.agent.signal(number)
    assert vm.agent.wait() == 0
    assert vm.types()[-1] == "VMStopped"
    assert not (vm.double.root / ".runner").exists()


def test_the_first_signal_lets_the_job_finish(machine):
    vm = running(machine)
    vm.agent.signal(signal.SIGTERM)
    vm.agent.until("draining")
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    assert vm.events("JobCompleted")[0]["data"]["result"] == "succeeded"


def test_the_second_signal_stops_it(machine):
    vm = running(machine)
    vm.agent.signal(signal.SIGTERM)
    vm.agent.until("draining")
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0
    data = vm.events("JobCompleted")[0]["data"]
    assert (data["result"], data["cause"]) == ("failed", "shutdown")


def test_a_job_over_its_limit_is_a_timeout(machine):
    vm = running(machine, runner={"max_job_duration": "1s"})
    data = vm.event("JobCompleted")["data"]
    assert (data["result"], data["cause"]) == ("failed", "timeout")
    assert vm.agent.wait() == 0


def test_a_machine_without_work_ends_after_its_idle_timeout(machine):
    vm = machine(IDLE, runner={"idle_timeout": "500ms"})
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert vm.events("VMShuttingDown")[0]["data"]["reason"] == "idle_timeout"


@pytest.mark.slow
def test_a_runner_that_crashes_is_started_again_but_not_for_ever(machine):
    crash = {"scenario": "crash_loop"}
    vm = machine(crash, crash, job())
    vm.agent.start()
    assert vm.agent.wait(40) == 0
    assert vm.types().count("RunnerCrashed") == 2
    assert vm.events("JobCompleted")[0]["data"]["result"] == "succeeded"
