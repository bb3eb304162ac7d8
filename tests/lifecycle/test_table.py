"""The lifecycle: histories of facts, and what the machine makes of them."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miglet.lifecycle.common import with_policy
from miglet.lifecycle.effects import Exit, Post, SetTimer, StopCrew, StopTimer
from miglet.lifecycle.standing import standing_orders
from miglet.lifecycle.table import TABLE, leaves_to, step
from miglet.lifecycle.vm import Moment, Policy, State, Vm
from miglet.messages import facts
from miglet.messages.facts import (
    CommandExamined,
    DeadlinePassed,
    EventDelivered,
    EventRefused,
    EventSetAside,
    EventsFlushed,
    PreflightDone,
    RegistrationFailed,
    RunnerRemoved,
    RunnerTroubled,
    SettingsLoaded,
    SettingsRefused,
    SignalReceived,
    StartAcknowledged,
    TerminationNoticed,
    TokenSpent,
    WorkerLost,
)
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner, WatchRunner
from tests.histories import (
    ACKNOWLEDGED,
    AT,
    IDENTIFIED,
    LAUNCHED,
    LISTENING,
    MACHINE,
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
    told,
    types,
)

TERM = SignalReceived("SIGTERM")
REMOVED = RunnerRemoved("removed")


def test_a_boot_leads_to_a_listening_runner():
    vm, effects = live(fresh(), PREPARED, ACKNOWLEDGED, LAUNCHED, LISTENING)
    assert vm.state is State.IDLE
    assert types(effects) == ["VMStarted", "RunnerRegistered"]
    assert told(effects) == [ProvideRunner("vm-1-b00t")]


def test_each_step_of_a_boot_is_timed_once():
    vm, effects = live(
        fresh(),
        PREPARED,
        ACKNOWLEDGED,
        TokenSpent("abc"),
        LAUNCHED,
        LISTENING,
        SEEN,
        now=50.0,
    )
    steps = [
        "preflight",
        "acknowledged",
        "token",
        "configured",
        "listening",
        "first_job",
    ]
    assert list(vm.timeline) == steps
    assert set(vm.timeline.values()) == {50_000.0}
    assert events(effects)[-1].timeline.keys() == set(steps[:-1])
    assert live(vm, TokenSpent("abc"), now=70.0)[0].timeline == vm.timeline


def test_nothing_is_registered_before_the_start_is_acknowledged():
    vm, effects = live(fresh(), PREPARED, EventDelivered(2, "Error"))
    assert vm.state is State.WAITING_FOR_CONTROLLER
    assert told(effects) == []


def test_a_failed_check_ends_the_start_with_an_error_each():
    faults = [
        {"id": name, "status": "fail", "detail": "d", "hint": "h", "category": kind}
        for name, kind in (("disk", "infrastructure"), ("docker", "misconfig"))
    ]
    vm, effects = live(fresh(), PreflightDone(faults, MACHINE))
    assert vm.state is State.ERROR
    assert types(effects) == ["VMStarted", "Error", "Error"]
    assert vm.end.exit_status == 69


def test_misconfiguration_alone_exits_with_78():
    fault = {"key": "pool_id", "source": "file", "reason": "is missing", "hint": ""}
    vm, effects = live(fresh(), SettingsRefused([fault]))
    assert vm.state is State.ERROR
    assert vm.end.exit_status == 78
    assert events(effects)[0].category == "misconfig"


def test_a_refused_start_is_refused_by_the_controller():
    vm, _ = live(fresh(), PREPARED, EventRefused(1, "VMStarted", 404, "who?"))
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 77)


def test_a_controller_that_never_answers_is_given_up():
    vm, effects = live(fresh(), PREPARED, DeadlinePassed("give_up"))
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 69)
    assert SetTimer("give_up", 600.0) in effects


def test_a_job_is_announced_as_soon_as_it_is_identified():
    vm, effects = live(idle(), SEEN, IDENTIFIED)
    assert vm.state is State.JOB_RUNNING
    (started,) = events(effects)
    assert started.repository == "octo/widget"
    assert started.source == "worker_log"


def test_a_job_that_nobody_identifies_is_announced_after_two_seconds():
    vm, effects = live(idle(), SEEN)
    assert types(effects) == []
    assert SetTimer("announce", 2.0) in effects
    vm, effects = live(vm, DeadlinePassed("announce"))
    assert types(effects) == ["JobStarted"]
    assert types(live(vm, DeadlinePassed("announce"), IDENTIFIED)[1]) == []


def test_what_is_learnt_late_is_in_the_completion():
    vm, effects = live(idle(), SEEN, DeadlinePassed("announce"), IDENTIFIED, finished())
    assert types(effects) == ["JobStarted", "JobCompleted", "VMShuttingDown"]
    assert events(effects)[1].repository == "octo/widget"


def test_a_job_shorter_than_its_announcement_has_both_events_in_order():
    vm, effects = live(idle(), SEEN, finished())
    assert types(effects)[:2] == ["JobStarted", "JobCompleted"]


def test_after_its_job_the_machine_shuts_down():
    vm, effects = live(busy(), finished())
    assert vm.state is State.SHUTTING_DOWN
    assert told(effects) == [StopRunner(settle_seconds=5.0)]
    assert vm.end.reason == "job_completed"


def test_or_registers_again_under_a_new_name():
    vm, effects = live(busy(after_job="register"), finished())
    assert vm.state is State.REGISTERING_RUNNER
    (order,) = told(effects)
    assert order.name == "vm-1-b00t-2"
    assert not order.keep_registration


def test_the_end_of_a_runner_that_had_told_its_result_changes_nothing_more():
    vm, _ = live(busy(), finished())
    after, effects = live(vm, gone(evidence()))
    assert types(effects) == []
    assert after.job is None


def test_a_runner_that_vanishes_with_its_job_is_a_crash_and_never_a_success():
    vm, effects = live(busy(), gone(evidence(None, None), None, 9))
    crash, completed, _ = events(effects)
    assert crash.type == "RunnerCrashed"
    assert crash.signal == 9
    assert (completed.result, completed.cause) == ("unknown", "runner_crash")
    assert vm.state is State.SHUTTING_DOWN


def test_a_job_is_completed_once_whatever_is_told_twice():
    vm, effects = live(busy(), finished(), finished(), gone(evidence()), SEEN)
    assert types(effects).count("JobCompleted") == 1
    assert vm.job is None


def test_facts_of_another_run_are_stale():
    other = facts.JobSeen("f" * 32, "output", AT)
    assert live(idle(), other) == (idle(), [])


def test_a_run_that_is_over_is_not_taken_for_the_next_one():
    vm, _ = live(busy(after_job="register"), finished(), gone(evidence()))
    assert live(vm, LISTENING, SEEN, IDENTIFIED, finished()) == (vm, [])


def test_a_run_whose_job_is_told_is_not_launched_again():
    vm, _ = live(busy(after_job="register"), finished())
    assert live(vm, LAUNCHED, LISTENING, SEEN, finished()) == (vm, [])


def test_durations_do_not_follow_the_wall_clock():
    vm, _ = live(idle(), SEEN, IDENTIFIED, now=50.0)
    _, effects = step(vm, finished(), Moment(AT - 3600.0, 57.5))
    completed = effects[-1] and next(
        each.event for each in effects if getattr(each, "event", None)
    )
    assert completed.duration_seconds == 7.5


def test_a_runner_that_ends_idle_is_provided_again_with_growing_delay():
    vm, effects = live(idle(), gone(exit_code=2))
    assert vm.state is State.REGISTERING_RUNNER
    assert types(effects) == ["RunnerCrashed"]
    (order,) = told(effects)
    assert (order.delay_seconds, order.keep_registration) == (1.0, True)
    vm, effects = live(vm, LAUNCHED, LISTENING, gone(exit_code=2))
    assert told(effects)[-1].delay_seconds == 2.0


def test_a_run_that_is_over_is_named_so_that_an_untold_one_is_known_from_it():
    vm, effects = live(idle(), gone(exit_code=2))
    assert told(effects)[0].former_run == RUN
    assert standing_orders(vm, 50.0)[0].former_run == RUN
    again = reborn(vm).having(state=vm.state)
    assert standing_orders(again, 50.0)[0].former_run == RUN


def test_but_not_for_ever():
    vm = idle(max_restarts=2)
    for _ in range(3):
        vm, effects = live(vm, LAUNCHED, LISTENING, gone(exit_code=2))
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 69)
    assert events(effects)[-1].category == "infrastructure"


def test_a_ghost_is_replaced():
    vm, effects = live(idle(), RunnerTroubled(RUN, "ghost", "a job never came"))
    assert vm.state is State.REGISTERING_RUNNER
    assert told(effects)[0].instead_of == RUN


def test_a_registration_that_cannot_be_had_is_an_error():
    failed = RegistrationFailed("permanent", "refused", "no", "ask them", 77)
    vm, effects = live(fresh(), PREPARED, ACKNOWLEDGED, failed)
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 77)
    vm, effects = live(vm, EventDelivered(2, "Error"))
    assert vm.state is State.SHUTTING_DOWN
    assert types(effects) == ["VMShuttingDown"]


def test_a_machine_that_never_had_a_runner_has_nothing_to_stop():
    vm, effects = live(fresh(), PREPARED, TERM)
    assert told(effects) == []
    assert StopCrew() in effects
    assert live(vm, EventsFlushed())[1] == [Exit(0)]


def test_an_error_that_cannot_be_told_does_not_put_the_end_off():
    failed = RegistrationFailed("permanent", "refused", "no", "ask them", 77)
    vm, _ = live(
        fresh(), PREPARED, ACKNOWLEDGED, failed, DeadlinePassed("error"), REMOVED
    )
    vm, effects = live(vm, DeadlinePassed("flush"))
    assert effects == [Exit(77)]


def test_drain_waits_for_the_job():
    vm, effects = live(busy(), CommandExamined("c1", "drain", {}))
    assert vm.state is State.DRAINING
    assert types(effects) == ["CommandCompleted"]
    vm, effects = live(vm, finished())
    assert vm.state is State.SHUTTING_DOWN
    assert types(effects) == ["JobCompleted", "VMShuttingDown"]
    assert events(effects)[1].reason == "drain"


def test_drain_wins_over_registering_again():
    vm, _ = live(busy(after_job="register"), CommandExamined("c1", "Drain", {}))
    vm, _ = live(vm, finished())
    assert vm.state is State.SHUTTING_DOWN


def test_a_job_that_slips_into_a_drain_is_reported():
    vm, effects = live(idle(), CommandExamined("c1", "Drain", {}))
    assert told(effects) == [DrainRunner()]
    vm, effects = live(vm, SEEN, IDENTIFIED, finished())
    assert types(effects) == ["JobStarted", "JobCompleted", "VMShuttingDown"]


def test_an_idle_runner_that_is_drained_ends_the_machine():
    vm, _ = live(idle(), CommandExamined("c1", "Drain", {}))
    vm, effects = live(vm, gone(), REMOVED)
    assert vm.state is State.SHUTTING_DOWN
    assert types(effects) == ["VMShuttingDown"]
    assert StopCrew() in effects
    assert live(vm, EventsFlushed())[1] == [Exit(0)]


def test_an_immediate_shutdown_names_its_cause_in_the_job():
    command = CommandExamined("c1", "Shutdown", {"mode": "immediate"})
    vm, effects = live(busy(), command)
    assert vm.state is State.SHUTTING_DOWN
    assert told(effects) == [StopRunner()]
    vm, effects = live(vm, finished("Canceled", 102), REMOVED)
    (completed,) = events(effects)
    assert (completed.result, completed.cause) == ("cancelled", "shutdown")


def test_a_job_over_its_limit_is_stopped_as_a_timeout():
    vm, effects = live(idle(max_job_duration=60.0), SEEN, IDENTIFIED)
    assert SetTimer("max_job", 60.0) in effects
    vm, effects = live(vm, DeadlinePassed("max_job"))
    assert told(effects) == [StopRunner()]
    vm, effects = live(vm, gone(evidence("Canceled", 102)))
    assert events(effects)[0].cause == "timeout"


def test_an_idle_machine_ends_after_its_idle_timeout():
    vm, effects = live(
        fresh(idle_timeout=9.0), PREPARED, ACKNOWLEDGED, LAUNCHED, LISTENING
    )
    assert SetTimer("idle", 9.0) in effects
    vm, _ = live(vm, DeadlinePassed("idle"))
    assert vm.state is State.DRAINING


def test_changed_settings_hold_for_a_runner_that_waits_and_a_job_that_runs():
    policy = Policy(idle_timeout=10.0, max_job_duration=20.0)
    later = Moment(AT + 4.0, 104.0)
    waiting = idle().having(since=AT)
    vm, effects = with_policy(waiting, policy, later)
    assert vm.policy == policy
    assert effects[-1] == SetTimer("idle", 6.0)
    job = dataclasses.replace(busy().job, seen_now=100.0)
    _, effects = with_policy(busy().having(job=job), policy, later)
    assert [e for e in effects if isinstance(e, SetTimer)] == [
        SetTimer("max_job", 16.0)
    ]
    _, effects = with_policy(vm, Policy(), later)
    assert effects == [StopTimer("idle"), StopTimer("max_job")]


def test_first_signal_finishes_the_job_second_stops_it_third_goes():
    vm, effects = live(busy(), TERM)
    assert vm.state is State.DRAINING
    assert SetTimer("force", 300.0) in effects
    vm, effects = live(vm, TERM)
    assert vm.state is State.SHUTTING_DOWN
    assert told(effects) == [StopRunner()]
    vm, effects = live(vm, TERM)
    assert effects[-1] == Exit(0)
    assert types(effects) == ["JobCompleted"]


def test_a_job_that_outlasts_force_after_is_stopped():
    vm, _ = live(busy(), TERM)
    vm, effects = live(vm, DeadlinePassed("force"))
    assert vm.state is State.SHUTTING_DOWN
    assert told(effects) == [StopRunner()]


@pytest.mark.parametrize("state", list(State), ids=lambda each: each.value)
def test_three_signals_leave_from_every_state(state):
    vm = fresh() if state is State.INITIALIZING else busy().having(state=state)
    vm, effects = live(vm, TERM, TERM, TERM)
    assert isinstance(effects[-1], Exit)


def test_a_runner_that_cannot_be_ended_does_not_put_the_end_off():
    vm, _ = live(busy(), TERM, TERM)
    vm, effects = live(vm, DeadlinePassed("stop"))
    (completed,) = events(effects)
    assert (completed.result, completed.cause) == ("unknown", "shutdown")
    assert live(vm, DeadlinePassed("flush"))[1] == [Exit(0)]


def test_a_lost_worker_is_reported_and_the_machine_goes_on():
    vm, effects = live(busy(), WorkerLost("command-poller", 5, "exit status 1"))
    assert vm.state is State.JOB_RUNNING
    assert events(effects)[0].code == "worker_crash_loop"


def test_without_a_watcher_no_runner_can_ever_be_registered():
    vm, _ = live(fresh(), PREPARED, ACKNOWLEDGED)
    vm, _ = live(vm, WorkerLost("runner-watcher", 10, "exit status 1"))
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 70)


PREEMPTED = TerminationNoticed("preempted", AT + 30.0, "gce")


def test_a_notice_drains_an_idle_machine_at_once():
    vm, effects = live(idle(), PREEMPTED)
    assert vm.state is State.DRAINING
    assert types(effects) == ["TerminationNotice"]
    assert told(effects) == [DrainRunner()]
    vm, effects = live(vm, gone(), REMOVED)
    assert events(effects)[0].reason == "termination_notice"


def test_a_notice_lets_the_job_go_on_while_time_allows():
    vm, effects = live(busy(), PREEMPTED)
    assert SetTimer("notice", 15.0) in effects
    assert told(effects) == [DrainRunner()]
    _, effects = live(vm, finished())
    assert events(effects)[0].cause == "success"


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
    assert told(effects)[-1] == StopRunner(grace_seconds=23.0)
    vm, effects = live(vm, finished("Canceled", 102))
    assert events(effects)[0].cause == "termination_notice"


def test_a_job_that_dies_with_its_announced_machine_died_of_that():
    vm, _ = live(busy(), PREEMPTED)
    _, effects = live(vm, gone(evidence(None, None), None, 9))
    completed = next(each for each in events(effects) if each.type == "JobCompleted")
    assert completed.cause == "termination_notice"


LOADED = SettingsLoaded({}, [])


def reborn(vm: Vm) -> Vm:
    """The machine as a new MIGlet finds it in the journal."""
    return Vm.restored(vm.kept(), Policy(), Moment(AT, 50.0))


def test_a_new_miglet_adopts_the_job_of_the_old_one():
    vm, effects = live(reborn(busy()), LOADED)
    assert told(effects) == [WatchRunner(RUN)]
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
    vm, _ = live(busy(), CommandExamined("c1", "Drain", {}))
    vm, effects = live(reborn(vm), LOADED, LISTENING)
    assert vm.state is State.DRAINING


def test_an_announced_end_outlives_a_restart():
    vm, _ = live(busy(), PREEMPTED)
    _, effects = live(reborn(vm), LOADED, LISTENING)
    assert [each.name for each in effects if isinstance(each, SetTimer)][-1] == "notice"


def test_an_acknowledged_start_is_not_announced_again():
    vm, _ = live(fresh(), PREPARED, ACKNOWLEDGED)
    vm, effects = live(reborn(vm), LOADED)
    assert types(effects) == ["Error"]
    assert Post(StartAcknowledged()) in effects
    vm, effects = live(vm, StartAcknowledged())
    assert vm.state is State.REGISTERING_RUNNER


def test_what_is_kept_is_restored_whole():
    vm, _ = live(busy(), CommandExamined("c1", "Drain", {"reason": "spot"}))
    again = reborn(vm)
    assert (again.job, again.end, again.runner) == (vm.job, vm.end, vm.runner)


@pytest.mark.parametrize(
    ("vm", "orders"),
    [
        (idle(), [WatchRunner(RUN)]),
        (busy(), [WatchRunner(RUN)]),
        (live(busy(), TERM)[0], [WatchRunner(RUN), DrainRunner()]),
        (live(busy(), TERM, TERM)[0], [WatchRunner(RUN), StopRunner()]),
        (
            live(fresh(), PREPARED, ACKNOWLEDGED)[0],
            [ProvideRunner("vm-1-b00t", keep_registration=True)],
        ),
        (live(fresh(), PREPARED, ACKNOWLEDGED, LAUNCHED)[0], [WatchRunner(RUN)]),
        (live(idle(), TERM, gone(), REMOVED)[0], []),
    ],
    ids=["idle", "busy", "drain", "stop", "registering", "launched", "flushing"],
)
def test_a_new_watcher_is_told_what_the_dead_one_knew(vm, orders):
    assert standing_orders(vm, 50.0) == orders


def test_a_new_watcher_is_no_more_patient_than_the_machine_can_be():
    vm, _ = live(busy(), PREEMPTED, DeadlinePassed("notice"))
    assert standing_orders(vm, 65.0)[-1] == StopRunner(grace_seconds=8.0)
    assert standing_orders(vm, 99.0)[-1] == StopRunner(grace_seconds=0.0)


def test_every_state_has_a_row_and_a_way_out():
    for state in State:
        assert TABLE[state]
        if state is not State.SHUTTING_DOWN:
            assert leaves_to(state) - {state}


def test_every_state_can_be_reached():
    reached = {State.INITIALIZING}.union(*(leaves_to(state) for state in State))
    assert reached == set(State)


HISTORY = [
    PREPARED,
    ACKNOWLEDGED,
    LAUNCHED,
    LISTENING,
    SEEN,
    IDENTIFIED,
    finished(),
    finished("Failed", 102),
    gone(),
    gone(evidence(None, None), None, 9),
    gone(evidence("Failed", 137)),
    RunnerTroubled(RUN, "ghost", "x"),
    TERM,
    REMOVED,
    EventsFlushed(),
    EventDelivered(3, "Error"),
    CommandExamined("c", "Drain", {}),
    CommandExamined("c", "Shutdown", {"mode": "immediate"}),
    LOADED,
    PREEMPTED,
    DeadlinePassed("notice"),
    StartAcknowledged(),
    RegistrationFailed("permanent", "refused", "no", "", 77),
    *(DeadlinePassed(name) for name in ("announce", "max_job", "idle", "force")),
    *(DeadlinePassed(name) for name in ("error", "stop", "flush")),
]


@pytest.mark.parametrize(
    "code, last, told",
    [
        ("", False, ["Error"]),
        ("", True, []),
        ("event_set_aside", False, []),
        ("other", False, ["Error"]),
    ],
)
def test_an_event_that_is_set_aside_is_told_once(code, last, told):
    fact = EventSetAside(7, "JobCompleted", code, "500", last)
    _, effects = live(fresh(), PREPARED, ACKNOWLEDGED, fact)
    assert [name for name in types(effects) if name != "VMStarted"] == told


@settings(max_examples=400)
@given(st.lists(st.sampled_from(HISTORY), max_size=25), st.booleans())
def test_in_any_history_started_and_completed_alternate(history, again):
    vm = fresh(after_job="register" if again else "shutdown")
    seen: list[str] = []
    for fact in history:
        decided = live(vm, fact)
        vm = (
            reborn(decided[0])
            if fact is LOADED and decided[0].announced
            else decided[0]
        )
        if vm.state is State.INITIALIZING and vm.announced:
            vm, more = live(vm, LOADED)
        seen += [name for name in types(decided[1]) if name.startswith("Job")]
    expected = itertools.cycle(("JobStarted", "JobCompleted"))
    assert seen == list(itertools.islice(expected, len(seen)))
    assert (len(seen) % 2 == 1) == bool(vm.job and vm.job.announced)
