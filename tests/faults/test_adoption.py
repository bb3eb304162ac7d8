"""MIGlet dies at every step that it takes, and is started again.

Whatever the moment: one registration at a time, one runner at a time, one end of each
job with its true result, and an orderly end.
"""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import IDLE, job
from tests.faults import invariants
from tests.faults.death_points import deadly, fired, live_on

#: Points that only the runner-watcher comes by, in the order of a life.
WATCHER = [
    "runner-watcher.opening",
    "configuration.starting",
    "configuration.started",
    "configuration.ended",
    "runner.launching",
    "runner.launched",
    "watcher.saw.RunnerListening",
    "watcher.reported.RunnerListening",
    "watcher.saw.JobSeen",
    "watcher.reported.JobSeen",
    "watcher.saw.JobIdentified",
    "watcher.reported.JobIdentified",
    "watcher.saw.RunnerExited",
    "watcher.reported.RunnerExited",
]

#: An idle timeout within which a waiting job arrives, even on a busy machine: it takes
#: 0.1 s from the moment when its runner listens.
JOB_ARRIVES = "1500ms"

#: Points on the way out of a machine that never had a job.
REMOVAL = ["removal.asking", "removal.asked", "removal.ended"]

#: More than a life like this has of each: the last one must come by without a death.
STEPS = {"journal.recorded": 14, "arbiter.acted": 21}
ACKNOWLEDGEMENTS = 8
STEPS_WITH_TWO_JOBS = 24

EACH = [
    (point, number) for point, most in STEPS.items() for number in range(1, most + 1)
]


def life(machine, result="Succeeded"):
    return machine(job(result, seconds=0.4, name="build"))


def check(vm, status: int, jobs: int = 1) -> None:
    assert status == 0, vm.agent.end_of_log()
    invariants.kept(vm.events(), vm, jobs)
    assert vm.types().count("VMStarted") == 1
    assert vm.types().count("VMShuttingDown") == 1
    assert [kind for kind in vm.types() if kind != "Error"][-1] == "VMStopped"


def life_with_two_jobs(machine):
    """A runner after the other, until nobody has a job for the third."""
    jobs = [job("Failed", seconds=0.4, name="one"), job(seconds=0.4, name="two")]
    settings = {"after_job": "register", "idle_timeout": JOB_ARRIVES}
    return machine(*jobs, IDLE, runner=settings)


def test_a_death_at_a_point_is_a_death_and_happens_once(machine):
    vm = life(machine)
    plan = deadly(vm, "journal.recorded 3 kill")
    check(vm, live_on(vm))
    assert fired(plan, "journal.recorded")


@pytest.mark.slow
@pytest.mark.parametrize("ended", [False, True], ids=["at once", "too late"])
@pytest.mark.parametrize(("point", "number"), EACH)
def test_killed_at_any_step_nothing_is_lost_or_repeated(machine, point, number, ended):
    vm = life(machine, "Failed" if number % 2 else "Succeeded")
    plan = deadly(vm, f"{point} {number} kill")
    check(vm, live_on(vm, ended))
    if number == STEPS[point]:
        assert not fired(plan, point), "a life has more steps than are tried"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, STEPS_WITH_TWO_JOBS + 1))
def test_killed_at_any_step_between_two_jobs_both_are_reported_once(machine, number):
    vm = life_with_two_jobs(machine)
    plan = deadly(vm, f"journal.recorded {number} kill")
    check(vm, live_on(vm), jobs=2)
    if number == STEPS_WITH_TWO_JOBS:
        assert not fired(plan, "journal.recorded"), "there are more steps"


@pytest.mark.slow
@pytest.mark.parametrize("point", WATCHER[1:])
def test_a_watcher_that_dies_between_two_jobs_has_both_reported_once(machine, point):
    vm = life_with_two_jobs(machine)
    plan = deadly(vm, f"{point} 2 kill")
    check(vm, live_on(vm), jobs=2)
    assert fired(plan, point)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, ACKNOWLEDGEMENTS + 1))
def test_killed_at_any_acknowledgement_no_event_is_reported_twice(machine, number):
    vm = life(machine)
    plan = deadly(vm, f"journal.delivered {number} kill")
    check(vm, live_on(vm))
    if number == ACKNOWLEDGEMENTS:
        assert not fired(plan, "journal.delivered"), "there are more of them"


@pytest.mark.slow
@pytest.mark.parametrize("every", [4, 5, 6])
def test_killed_again_and_again_it_still_comes_to_its_end(machine, every):
    vm = life(machine)
    deadly(vm, f"journal.recorded {every}+ kill")
    check(vm, live_on(vm))


@pytest.mark.slow
@pytest.mark.parametrize("action", ["kill", "kill-with-parent"])
@pytest.mark.parametrize("point", WATCHER)
def test_a_watcher_that_dies_at_any_point_is_replaced(machine, point, action):
    vm = life(machine)
    plan = deadly(vm, f"{point} 1 {action}")
    check(vm, live_on(vm))
    assert fired(plan, point)


@pytest.mark.slow
@pytest.mark.parametrize("point", WATCHER)
def test_what_a_runner_does_before_there_is_a_watcher_again_is_reported(machine, point):
    vm = life(machine, "Failed")
    plan = deadly(vm, f"{point} 1 kill-with-parent")
    check(vm, live_on(vm, ended=True))
    assert fired(plan, point)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["kill", "kill-with-parent"])
@pytest.mark.parametrize("point", REMOVAL)
def test_a_removal_that_dies_at_any_point_leaves_no_registration(
    machine, point, action
):
    vm = machine(runner={"idle_timeout": "300ms"})
    plan = deadly(vm, f"{point} 1 {action}")
    assert live_on(vm) == 0
    assert fired(plan, point)
    invariants.whole(vm.events())
    assert vm.types().count("VMShuttingDown") == 1
    assert not (vm.double.root / ".runner").exists()


@pytest.mark.slow
def test_another_life_does_not_report_again_what_the_last_one_reported(machine):
    vm = machine(job("Failed"), IDLE, runner={"idle_timeout": JOB_ARRIVES})
    for _ in range(2):
        vm.agent.start()
        assert vm.agent.wait() == 0
    events = vm.events()
    invariants.kept(events, vm)
    assert vm.types().count("VMStarted") == 2
    assert "Error" not in vm.types()


@pytest.mark.slow
def test_killed_on_its_way_out_it_only_goes(machine):
    vm = life(machine)
    deadly(vm, "arbiter.leaving 1 kill")
    check(vm, live_on(vm))
    assert len(vm.double.truth("config_start")) == 1
