"""What systemd hears of MIGlet: whether it is ready, what it does, if it is well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import HELD, IDLE, Machine
from tests.faults.death_points import deadly
from tests.notify_socket import NotifySocket
from tests.support import eventually

#: Each turn of the arbiter's loop says that it is well, and there is one a second.
TURN_SECONDS = 1.0

WELL = "WATCHDOG=1"


@pytest.fixture
def ear(machine) -> Iterator[tuple[Machine, NotifySocket]]:
    """A machine with a held job, and what listens to its MIGlet."""
    vm = machine(HELD, IDLE)
    ear = NotifySocket(vm.agent, vm.vm)
    yield vm, ear
    ear.close()


def test_systemd_hears_of_readiness_of_the_job_and_of_the_end(ear):
    vm, listener = ear
    vm.agent.start()
    eventually(lambda: "READY=1" in listener.listen(), what="READY")
    vm.double.release_job()
    eventually(
        lambda: any(
            line.startswith("STATUS=job_running: ") for line in listener.listen()
        ),
        what="a status that names the job",
    )
    vm.double.finish_step()
    eventually(lambda: "STOPPING=1" in listener.listen(), what="the end")
    assert vm.agent.wait() == 0


@pytest.mark.slow
def test_while_a_worker_that_all_depends_on_cannot_live_miglet_is_not_well(ear):
    name = "heartbeat-sender"
    vm, listener = ear
    vm.agent.start()
    eventually(lambda: listener.hears(WELL), what="a sign of life")
    vm.double.release_job()
    vm.agent.until("job_running")
    vm.agent.kill()
    deadly(vm, f"{name}.opening 1+ exit")
    vm.agent.start()
    eventually(lambda: not vm.agent.ctl("status").returncode, what="a status")
    eventually(lambda: not healthy(vm, name), what="its loss", seconds=30)
    listener.hears(WELL)
    assert WELL not in listener.listen(3 * TURN_SECONDS)


def test_any_other_worker_may_be_missing(ear):
    vm, listener = ear
    deadly(vm, "command-poller.opening 1+ exit")
    vm.agent.start()
    vm.event("Error")
    assert not healthy(vm, "command-poller")
    listener.hears(WELL)
    eventually(lambda: listener.hears(WELL), what="a sign of life")


def healthy(vm: Machine, name: str) -> bool:
    """What the status says of the worker once it was lost."""
    worker = vm.agent.status()["workers"][name]
    return worker["healthy"] or worker["restarts"] < 5
