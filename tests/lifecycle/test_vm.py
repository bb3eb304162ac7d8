"""What the journal keeps of the machine, and what a new MIGlet makes of it."""

from __future__ import annotations

from miglet.lifecycle.effects import (
    SetTimer,
)
from miglet.lifecycle.vm import End, FailedStart, State
from miglet.messages.facts import (
    CommandValidated,
)
from miglet.messages.orders import WatchRunner
from tests.histories import (
    IDENTIFIED,
    LISTENING,
    RUN,
    SEEN,
    USAGE,
    busy,
    events,
    evidence,
    finished,
    fresh,
    gone,
    idle,
    live,
    orders,
    types,
)
from tests.lifecycle.facts import LOADED, PREEMPTED, REMOVED, reborn


def test_a_new_miglet_adopts_the_job_of_the_old_one():
    vm, effects = live(reborn(busy()), LOADED)
    assert orders(effects) == [WatchRunner(RUN)]
    vm, effects = live(vm, LISTENING, SEEN, IDENTIFIED)
    assert vm.state is State.JOB_RUNNING
    assert types(effects) == []
    assert types(live(vm, finished())[1]) == ["JobCompleted", "VMShuttingDown"]


def test_a_job_that_ended_while_nobody_was_there_is_completed():
    vm, effects = live(reborn(busy()), LOADED, gone(evidence()))
    assert types(effects)[-2:] == ["JobCompleted", "VMShuttingDown"]
    assert events(effects)[-2].result == "succeeded"


def test_a_completed_job_is_not_completed_again_after_a_restart():
    vm, _ = live(busy(), finished())
    vm, effects = live(reborn(vm), LOADED, LISTENING, SEEN, finished(), REMOVED)
    assert "JobCompleted" not in types(effects)
    assert "VMShuttingDown" not in types(effects)
    assert vm.state is State.SHUTTING_DOWN


def test_a_drain_outlives_a_restart():
    vm, _ = live(busy(), CommandValidated("c1", "Drain", {}))
    vm, effects = live(reborn(vm), LOADED, LISTENING)
    assert vm.state is State.DRAINING


def test_an_announced_end_outlives_a_restart():
    vm, _ = live(busy(), PREEMPTED)
    _, effects = live(reborn(vm), LOADED, LISTENING)
    assert [each.name for each in effects if isinstance(each, SetTimer)][-1] == "notice"


def test_what_is_kept_is_restored_whole():
    vm, _ = live(busy(), CommandValidated("c1", "Drain", {"reason": "spot"}))
    again = reborn(vm)
    assert (again.job, again.end, again.runner) == (vm.job, vm.end, vm.runner)


def test_starts_count_as_repeated_only_while_they_end_alike():
    def failed(vm, code, status):
        return vm.replace(end=End(code, "miglet", status)).for_next_start()

    vm = failed(fresh(), "disk", 69)
    assert vm.failed_start == FailedStart("disk", 69, 0)
    vm = failed(failed(vm, "disk", 69), "disk", 69)
    assert vm.failed_start.repeats == 2
    assert failed(vm, "docker", 69).failed_start.repeats == 0
    assert failed(vm, "disk", 70).failed_start.repeats == 0


def test_what_a_job_has_used_deserves_no_write_of_its_own():
    vm = busy()
    used = vm.replace(job=vm.job.add_usage(USAGE))
    assert used != vm and not used.differs_from(vm)
    assert vm.replace(signals=1).differs_from(vm)
    assert not idle().differs_from(idle())
    assert vm.differs_from(idle())
