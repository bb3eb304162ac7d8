"""The end: drains, signals, notices, and what is waited for."""

from __future__ import annotations

import pytest

from miglet.lifecycle.effects import (
    Exit,
    KillRun,
    SetTimer,
    StopWorkers,
)
from miglet.lifecycle.runner import standing_orders
from miglet.lifecycle.vm import State
from miglet.messages.facts import (
    CommandValidated,
    DeadlinePassed,
    EventsFlushed,
    RegistrationFailed,
    TerminationNoticed,
    WorkerLost,
)
from miglet.messages.orders import DrainRunner, StopRunner
from tests.histories import (
    ACKNOWLEDGED,
    AT,
    IDENTIFIED,
    LAUNCHED,
    LISTENING,
    PREPARED,
    RUN,
    SEEN,
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
from tests.lifecycle.facts import HISTORY, PREEMPTED, REMOVED, TERM


def test_a_machine_that_never_had_a_runner_has_nothing_to_stop():
    vm, effects = live(fresh(), PREPARED, TERM)
    assert orders(effects) == []
    assert StopWorkers() in effects
    assert live(vm, EventsFlushed())[1] == [Exit(0)]


def test_an_error_that_cannot_be_reported_does_not_put_the_end_off():
    failed = RegistrationFailed("permanent", "refused", "no", "ask them", 77)
    vm, _ = live(
        fresh(), PREPARED, ACKNOWLEDGED, failed, DeadlinePassed("error"), REMOVED
    )
    vm, effects = live(vm, DeadlinePassed("flush"))
    assert effects == [Exit(75)]


def test_drain_waits_for_the_job():
    vm, effects = live(busy(), CommandValidated("c1", "drain", {}))
    assert vm.state is State.DRAINING
    assert types(effects) == ["CommandCompleted"]
    vm, effects = live(vm, finished())
    assert vm.state is State.SHUTTING_DOWN
    assert types(effects) == ["JobCompleted", "VMShuttingDown"]
    assert events(effects)[1].reason == "drained"


def test_drain_wins_over_registering_again():
    vm, _ = live(busy(after_job="register"), CommandValidated("c1", "Drain", {}))
    vm, _ = live(vm, finished())
    assert vm.state is State.SHUTTING_DOWN


def test_a_job_that_slips_into_a_drain_is_reported():
    vm, effects = live(idle(), CommandValidated("c1", "Drain", {}))
    assert orders(effects) == [DrainRunner()]
    vm, effects = live(vm, SEEN, IDENTIFIED, finished())
    assert types(effects) == ["JobStarted", "JobCompleted", "VMShuttingDown"]


def test_an_idle_runner_that_is_drained_ends_the_machine():
    vm, _ = live(idle(), CommandValidated("c1", "Drain", {}))
    vm, effects = live(vm, gone(), REMOVED)
    assert vm.state is State.SHUTTING_DOWN
    assert types(effects) == ["VMShuttingDown", "VMStopped"]
    assert StopWorkers() in effects
    assert live(vm, EventsFlushed())[1] == [Exit(0)]


def test_an_immediate_shutdown_names_its_cause_in_the_job():
    command = CommandValidated("c1", "Shutdown", {"mode": "immediate"})
    vm, effects = live(busy(), command)
    assert vm.state is State.SHUTTING_DOWN
    assert orders(effects) == [StopRunner()]
    vm, effects = live(vm, finished("failed", "shutdown", 102), REMOVED)
    completed, stopped = events(effects)
    assert (completed.result, completed.cause) == ("failed", "shutdown")
    assert (stopped.removal, stopped.runner_removed) == ("removed", True)


def test_an_idle_machine_ends_after_its_idle_timeout():
    vm, effects = live(
        fresh(idle_timeout=9.0), PREPARED, ACKNOWLEDGED, LAUNCHED, LISTENING
    )
    assert SetTimer("idle", 9.0) in effects
    vm, _ = live(vm, DeadlinePassed("idle"))
    assert vm.state is State.DRAINING


def test_first_signal_finishes_the_job_second_stops_it_third_goes():
    vm, effects = live(busy(), TERM)
    assert vm.state is State.DRAINING
    assert SetTimer("force", 300.0) in effects
    vm, effects = live(vm, TERM)
    assert vm.state is State.SHUTTING_DOWN
    assert orders(effects) == [StopRunner()]
    vm, effects = live(vm, TERM)
    assert effects[-1] == Exit(75)
    assert types(effects) == ["JobCompleted"]


def test_only_a_third_signal_ends_the_last_delivery():
    vm, _ = live(idle(), TERM, gone(), REMOVED)
    assert vm.flushing
    vm, effects = live(vm, TERM)
    assert effects == []
    assert live(vm, TERM)[1] == [Exit(75)]


def test_an_idle_machine_that_ends_has_stopped_no_job():
    vm, _ = live(idle(), TERM, TERM)
    assert (vm.state, vm.stopped_by) == (State.SHUTTING_DOWN, None)


def test_a_job_that_outlasts_force_after_is_stopped():
    vm, _ = live(busy(), TERM)
    vm, effects = live(vm, DeadlinePassed("force"))
    assert vm.state is State.SHUTTING_DOWN
    assert orders(effects) == [StopRunner()]


@pytest.mark.parametrize("state", list(State), ids=lambda each: each.value)
def test_three_signals_leave_from_every_state(state):
    vm = fresh() if state is State.INITIALIZING else busy().replace(state=state)
    vm, effects = live(vm, TERM, TERM, TERM)
    assert isinstance(effects[-1], Exit)


def test_a_runner_that_cannot_be_ended_does_not_put_the_end_off():
    vm, _ = live(busy(), TERM, TERM)
    vm, effects = live(vm, DeadlinePassed("stop"))
    completed, stopped = events(effects)
    assert (completed.result, completed.cause) == ("unknown", "shutdown")
    assert (stopped.removal, stopped.runner_removed) == ("failed", None)
    assert KillRun(RUN) in effects
    assert live(vm, DeadlinePassed("flush"))[1] == [Exit(75)]


def test_a_lost_worker_is_reported_and_the_machine_goes_on():
    vm, effects = live(busy(), WorkerLost("command-poller", 5, "exit status 1"))
    assert vm.state is State.JOB_RUNNING
    assert events(effects)[0].code == "worker_crash_loop"


def test_without_a_watcher_no_runner_can_ever_be_registered():
    vm, _ = live(fresh(), PREPARED, ACKNOWLEDGED)
    vm, _ = live(vm, WorkerLost("runner-watcher", 10, "exit status 1"))
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 70)


def test_a_notice_drains_an_idle_machine_at_once():
    vm, effects = live(idle(), PREEMPTED)
    assert vm.state is State.DRAINING
    assert types(effects) == ["TerminationNotice"]
    assert orders(effects) == [DrainRunner()]
    vm, effects = live(vm, gone(), REMOVED)
    assert events(effects)[0].reason == "termination_notice"


def test_a_notice_lets_the_job_go_on_while_time_allows():
    vm, effects = live(busy(), PREEMPTED)
    assert SetTimer("notice", 15.0) in effects
    assert orders(effects) == [DrainRunner()]
    _, effects = live(vm, finished())
    assert events(effects)[0].cause == "success"


def test_an_announced_end_is_awaited_for_the_sake_of_a_job_alone():
    def timers(vm):
        _, effects = live(vm, PREEMPTED)
        return {each.name for each in effects if isinstance(each, SetTimer)}

    assert "notice" in timers(busy())
    assert timers(live(fresh(), PREPARED)[0]) == {"flush"}


def test_the_earliest_of_several_announced_ends_counts():
    advice = TerminationNoticed("rebalance_recommendation", None, "aws")
    spot = TerminationNoticed("spot_instance_action", AT + 120.0, "aws")
    vm, effects = live(busy(), advice)
    assert not any(isinstance(each, SetTimer) for each in effects)
    vm, effects = live(vm, spot)
    assert SetTimer("notice", 105.0) in effects
    assert types(effects) == ["TerminationNotice"]
    assert live(vm, spot, advice) == (vm, [])


def test_a_job_that_is_stopped_for_a_notice_has_it_as_its_cause():
    vm, effects = live(busy(), PREEMPTED, DeadlinePassed("notice"))
    notice = "termination_notice"
    assert orders(effects)[-1] == StopRunner(grace_seconds=23.0, cause=notice)


def test_a_job_that_is_killed_for_a_notice_is_not_given_up_before_its_end_is_seen():
    vm, _ = live(busy(), PREEMPTED)
    notice_due = 50.0 + 15.0
    vm, effects = live(vm, DeadlinePassed("notice"), now=notice_due)
    killed_after = standing_orders(vm, notice_due)[-1].grace_seconds
    given_up_after = next(
        each.seconds
        for each in effects
        if isinstance(each, SetTimer) and each.name == "stop"
    )
    assert given_up_after >= killed_after + 2.0


def test_a_job_that_dies_with_its_announced_machine_died_of_that():
    vm, _ = live(busy(), PREEMPTED)
    _, effects = live(vm, gone(evidence(None, None), None, 9))
    completed = next(each for each in events(effects) if each.type == "JobCompleted")
    assert completed.cause == "termination_notice"


@pytest.mark.parametrize("state", [State.SHUTTING_DOWN, State.ERROR])
def test_a_job_that_slips_into_the_end_is_started_stopped_and_completed(state):
    lost = RegistrationFailed("permanent", "refused", "no", "", 77)
    ending = (TERM, TERM) if state is State.SHUTTING_DOWN else (lost,)
    vm = live(fresh(), PREPARED, ACKNOWLEDGED, LAUNCHED, LISTENING)[0]
    vm = live(vm.replace(state=State.REGISTERING_RUNNER), *ending)[0]
    vm = vm.replace(state=state)
    vm, effects = live(vm, SEEN, IDENTIFIED, finished("failed", "shutdown", 102))
    assert vm.state is state
    assert types(effects) == ["JobStarted", "JobCompleted"]


def test_nothing_is_reported_after_the_last_event():
    vm, effects = live(idle(), TERM, gone(), REMOVED)
    assert types(effects)[-1] == "VMStopped"
    late = [fact for fact in HISTORY if not isinstance(fact, DeadlinePassed)]
    assert types(live(vm, *late)[1]) == []


def test_an_announced_end_shortens_the_last_delivery():
    vm, _ = live(idle(), TERM, gone(), REMOVED)
    _, effects = live(vm, PREEMPTED)
    assert effects == [SetTimer("flush", 29.0)]
