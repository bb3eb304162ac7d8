"""The end of a machine, its own or ordered: nothing is left untold."""

from __future__ import annotations

from tests.image.conftest import Boot
from tests.support import eventually
from tests.systemd.machine import Machine

#: What a machine may take to switch itself off when nothing holds it up.
OFF_SECONDS = 30.0

JOB = ["JobStarted", "JobCompleted"]


def event_types(machine: Machine) -> list[str]:
    """The types of the events since the job began."""
    events = machine.controller.events(machine.vm)
    kinds = [each["type"] for each in events if each["type"] != "JobHeartbeat"]
    return kinds[kinds.index("JobStarted") :]


def result(machine: Machine) -> tuple[str, str]:
    """Result and cause of the one job."""
    (completed,) = machine.events("JobCompleted")
    return completed["data"]["result"], completed["data"]["cause"]


def test_a_machine_whose_job_is_done_switches_itself_off(boot: Boot):
    box, machine = boot("golden", "base", miglet_shutdown_action="poweroff")
    machine.in_a_job()
    machine.double.finish_step()
    box.switched_off(OFF_SECONDS)
    assert event_types(machine) == [
        "JobStarted",
        "JobCompleted",
        "VMShuttingDown",
        "VMStopped",
    ]
    assert result(machine) == ("succeeded", "success")


def test_a_machine_that_is_switched_off_lets_its_job_finish(boot: Boot):
    box, machine = boot("golden", "base", miglet_shutdown_action="poweroff")
    machine.in_a_job()
    machine.console.done("systemctl", "--no-block", "poweroff")
    machine.until("draining")
    assert not machine.double.truth("signal") and not machine.double.truth("step_exit")
    machine.double.finish_step()
    box.switched_off(OFF_SECONDS)
    assert event_types(machine) == [
        "JobStarted",
        "JobCompleted",
        "VMShuttingDown",
        "VMStopped",
    ]
    assert result(machine) == ("succeeded", "success")


def test_a_job_that_does_not_finish_in_time_ends_with_its_machine(boot: Boot):
    box, machine = boot("golden", "base", miglet_shutdown_force_after="1s")
    machine.in_a_job()
    machine.console.done("systemctl", "--no-block", "poweroff")
    box.switched_off(OFF_SECONDS)
    assert sorted(event_types(machine)) == [
        "JobCompleted",
        "JobStarted",
        "VMShuttingDown",
        "VMStopped",
    ]
    assert result(machine) == ("failed", "shutdown")


def test_an_administrator_who_stops_the_service_keeps_the_machine(boot: Boot):
    box, machine = boot("golden", "base", miglet_shutdown_action="poweroff")
    machine.until("idle")
    machine.console.done("systemctl", "stop", "miglet")
    (last,) = machine.events("VMShuttingDown")
    assert last["data"]["reason"] == "signal"
    jobs = machine.console.done("systemctl", "list-jobs", "--no-legend")
    assert not jobs and box.process.poll() is None
    eventually(lambda: not machine.double.registry()["runners"], what="deregistration")
