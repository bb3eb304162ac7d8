"""The end is bounded: whatever asks for it, and whatever hangs meanwhile.

Within the limits that are configured MIGlet is gone, nothing of the runner is left,
and the last events are delivered or on disk.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from miglet.journal.journal import Journal
from miglet.lifecycle.shutdown import REMOVAL_SECONDS
from miglet.lifecycle.table import ERROR_SECONDS
from tests.end_to_end.conftest import HELD, IDLE, Machine, pointed_at
from tests.end_to_end.test_notices import in_cloud, known
from tests.faults import network_faults
from tests.faults.network_faults import FaultyProxy, faulty_proxy
from tests.metadata_fakes import FAKES
from tests.reference_process import running_controller
from tests.support import eventually

GRACE, FORCE, SETTLE = 1.0, 1.5, 0.3

SETTINGS = {
    "controller": {"timeout": "1s", "command_wait": "500ms"},
    "runner": {"drain_settle": f"{SETTLE}s", "max_restarts": 0},
    "shutdown": {
        "grace_period": f"{GRACE}s",
        "force_after": f"{FORCE}s",
        "delivery_timeout": f"{GRACE}s",
        "last_resort": "none",
    },
}

#: Seconds that a job may go on when the machine is announced to end: the cloud's own.
NOTICE = 30.0

#: From the order to the end, at most: what a job is given, the runner's stop and
#: removal, the last events, and a second for the workers to leave.
LIMIT = FORCE + SETTLE + GRACE + REMOVAL_SECONDS + GRACE + 1.0

#: On top of it: this machine may be busy.
MARGIN = 2.0

DEAF_JOB = {**HELD, "ignore_signals": True, "ignores": ["INT", "TERM"]}


@pytest.fixture
def way(controller):
    """The way to the controller."""
    with faulty_proxy(controller.endpoint) as between:
        yield between


def idle(machine, way: FaultyProxy, *plan) -> Machine:
    vm = pointed_at(machine(*(plan or (IDLE,)), **SETTINGS), way.endpoint)
    vm.agent.start()
    vm.agent.until("idle")
    return vm


def busy(machine, way: FaultyProxy) -> Machine:
    vm = idle(machine, way, DEAF_JOB)
    vm.double.release_job()
    vm.event("JobStarted")
    eventually(lambda: vm.double.truth("step_start"), what="the step")
    return vm


def silent_controller(machine, way: FaultyProxy) -> Machine:
    """Nobody answers any more."""
    vm = idle(machine, way)
    way.change(network_faults.silent)
    return vm


def deaf_listener(machine, way: FaultyProxy) -> Machine:
    """The runner heeds no signal."""
    return idle(machine, way, {"scenario": "ignores_signals"})


def deaf_job(machine, way: FaultyProxy) -> Machine:
    """The job does not end and heeds no signal."""
    return busy(machine, way)


def silent_controller_in_a_job(machine, way: FaultyProxy) -> Machine:
    """Both at once."""
    vm = busy(machine, way)
    way.change(network_faults.silent)
    return vm


def stopped(name: str) -> Callable[..., Machine]:
    """A worker that does nothing any more and does not know it."""

    def hang(machine, way: FaultyProxy) -> Machine:
        vm = idle(machine, way)
        vm.agent.workers()[name].suspend()
        return vm

    return hang


def hanging_configuration(machine, way: FaultyProxy) -> Machine:
    """config.sh does not come back."""
    plan = {"config": {"outcome": "hang", "at": "registration", "ignore_signals": True}}
    vm = pointed_at(machine(IDLE, plan=plan, **SETTINGS), way.endpoint)
    vm.agent.start()
    eventually(lambda: vm.double.truth("config_hangs"), what="a hanging config.sh")
    return vm


HANGS = {
    "controller": silent_controller,
    "listener": deaf_listener,
    "job": deaf_job,
    "controller and job": silent_controller_in_a_job,
    "config.sh": hanging_configuration,
    "runner-watcher": stopped("runner-watcher"),
    "heartbeat-sender": stopped("heartbeat-sender"),
    "metrics-sampler": stopped("metrics-sampler"),
    "command-poller": stopped("command-poller"),
}


def sigterm(vm: Machine) -> None:
    vm.agent.signal(signal.SIGTERM)


def shutdown(vm: Machine) -> None:
    answer = vm.agent.ctl("shutdown", "--immediate")
    assert answer.returncode == 0, answer.stderr


ORDERS = {"SIGTERM": sigterm, "Shutdown": shutdown}


def last_words(vm: Machine) -> list[str]:
    """The types of all events that are delivered or on disk, but for errors."""
    path = vm.agent.folder / "state" / "journal.db"
    journal = Journal.open([path], "boot")
    rows = journal.recent(500)
    journal.close()
    return [each["type"] for each in rows if each["type"] != "Error"]


def check(vm: Machine, began: float, most: float = LIMIT) -> None:
    status = vm.agent.wait(most + MARGIN)
    print(f"ended after {time.monotonic() - began:.1f} s, at most {most:.1f}")
    assert status in (0, 69, 75), vm.agent.end_of_log()
    reported = last_words(vm)
    # What the service manager starts again is no end of the machine.
    assert (
        reported.count("VMShuttingDown")
        == reported.count("VMStopped")
        == (status != 69)
    )
    assert reported.count("JobStarted") == reported.count("JobCompleted") <= 1
    assert not vm.double.pids()


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("hanging", HANGS)
def test_the_end_comes_in_time_whatever_hangs(machine, way, hanging, order):
    vm = HANGS[hanging](machine, way)
    began = time.monotonic()
    ORDERS[order](vm)
    check(vm, began)


@pytest.mark.slow
@pytest.mark.parametrize("hanging", ["controller", "heartbeat-sender"])
def test_a_terminal_fault_ends_in_time_whatever_hangs(machine, way, hanging):
    vm = HANGS[hanging](machine, way)
    began = time.monotonic()
    os.kill(vm.agent.status()["runner"]["pid"], signal.SIGKILL)
    check(vm, began, LIMIT + ERROR_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_a_preempted_machine_has_reported_all_within_25_seconds(
    machine, tmp_path, busy
):
    with running_controller(tmp_path) as own, FAKES["gce"]() as cloud:
        vm = in_cloud(on(machine, own), cloud, DEAF_JOB if busy else IDLE, **SETTINGS)
        vm.agent.start()
        vm.agent.until("idle")
        known(vm)
        if busy:
            vm.double.release_job()
            vm.event("JobStarted")
        else:
            vm.agent.workers()["metrics-sampler"].suspend()
        began = time.monotonic()
        cloud.change("instance/preempted", "TRUE")
        check(vm, began, NOTICE - 5)
        kinds = vm.types()
        assert kinds.index("TerminationNotice") < kinds.index("VMShuttingDown")
        if busy:
            data = vm.events("JobCompleted")[0]["data"]
            assert (data["result"], data["cause"]) == (
                "cancelled",
                "termination_notice",
            )


def on(machine, controller) -> Callable[..., Machine]:
    """Makes machines that know another controller."""

    def make(*plan, **settings) -> Machine:
        vm = machine(*plan, **settings)
        vm.controller = controller
        return vm

    return make
