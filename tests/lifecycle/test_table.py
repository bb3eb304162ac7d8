"""The lifecycle: histories of facts, and what the machine makes of them."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miglet.job.signs import VersionDeprecated
from miglet.lifecycle.effects import (
    Emit,
    Exit,
    KillRun,
    Post,
    SetTimer,
    StopTimer,
    StopWorkers,
)
from miglet.lifecycle.runner import standing_orders
from miglet.lifecycle.table import (
    IGNORED,
    IGNORED_ANYWHERE,
    TABLE,
    TIMERS,
    change_policy,
    leaves_to,
    step,
)
from miglet.lifecycle.vm import Moment, Policy, State, Vm
from miglet.messages import facts
from miglet.messages.codec import MESSAGES
from miglet.messages.facts import (
    CommandExamined,
    DeadlinePassed,
    EventDelivered,
    EventRefused,
    EventSetAside,
    EventsFlushed,
    JobIdentified,
    ListenerDied,
    PreflightDone,
    RegistrationFailed,
    RunnerRemoved,
    RunnerTroubled,
    SettingsLoaded,
    SettingsRefused,
    SignalReceived,
    StartContinued,
    TerminationNoticed,
    TokenSpent,
    WorkerLost,
    WorkerStarted,
)
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner, WatchRunner
from tests.histories import (
    ACKNOWLEDGED,
    AT,
    IDENTIFIED,
    IDENTITY,
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
REMOVED = RunnerRemoved("removed", "removed")


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
    assert types(effects) == ["Error", "Error"]
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
    again = reborn(vm).replace(state=vm.state)
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
    assert StopWorkers() in effects
    assert live(vm, EventsFlushed())[1] == [Exit(0)]


def test_an_error_that_cannot_be_told_does_not_put_the_end_off():
    failed = RegistrationFailed("permanent", "refused", "no", "ask them", 77)
    vm, _ = live(
        fresh(), PREPARED, ACKNOWLEDGED, failed, DeadlinePassed("error"), REMOVED
    )
    vm, effects = live(vm, DeadlinePassed("flush"))
    assert effects == [Exit(75)]


def test_drain_waits_for_the_job():
    vm, effects = live(busy(), CommandExamined("c1", "drain", {}))
    assert vm.state is State.DRAINING
    assert types(effects) == ["CommandCompleted"]
    vm, effects = live(vm, finished())
    assert vm.state is State.SHUTTING_DOWN
    assert types(effects) == ["JobCompleted", "VMShuttingDown"]
    assert events(effects)[1].reason == "drained"


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
    assert types(effects) == ["VMShuttingDown", "VMStopped"]
    assert StopWorkers() in effects
    assert live(vm, EventsFlushed())[1] == [Exit(0)]


def test_an_immediate_shutdown_names_its_cause_in_the_job():
    command = CommandExamined("c1", "Shutdown", {"mode": "immediate"})
    vm, effects = live(busy(), command)
    assert vm.state is State.SHUTTING_DOWN
    assert told(effects) == [StopRunner()]
    vm, effects = live(vm, finished("failed", "shutdown", 102), REMOVED)
    completed, stopped = events(effects)
    assert (completed.result, completed.cause) == ("failed", "shutdown")
    assert (stopped.removal, stopped.runner_removed) == ("removed", True)


def test_a_job_over_its_limit_is_stopped_as_a_timeout():
    vm, effects = live(idle(max_job_duration=60.0), SEEN, IDENTIFIED)
    assert SetTimer("max_job", 60.0) in effects
    vm, effects = live(vm, DeadlinePassed("max_job"))
    assert told(effects) == [StopRunner(cause="timeout")]
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
    later = Moment(AT + 4.0, 54.0)
    vm, effects = change_policy(idle(), policy, later)
    assert vm.policy == policy
    assert effects == [SetTimer("idle", 6.0)]
    assert change_policy(vm, Policy(), later)[1] == [StopTimer("idle")]
    assert change_policy(busy(), policy, later)[1] == [SetTimer("max_job", 16.0)]


def test_first_signal_finishes_the_job_second_stops_it_third_goes():
    vm, effects = live(busy(), TERM)
    assert vm.state is State.DRAINING
    assert SetTimer("force", 300.0) in effects
    vm, effects = live(vm, TERM)
    assert vm.state is State.SHUTTING_DOWN
    assert told(effects) == [StopRunner()]
    vm, effects = live(vm, TERM)
    assert effects[-1] == Exit(75)
    assert types(effects) == ["JobCompleted"]


def test_a_job_that_outlasts_force_after_is_stopped():
    vm, _ = live(busy(), TERM)
    vm, effects = live(vm, DeadlinePassed("force"))
    assert vm.state is State.SHUTTING_DOWN
    assert told(effects) == [StopRunner()]


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
    notice = "termination_notice"
    assert told(effects)[-1] == StopRunner(grace_seconds=23.0, cause=notice)


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


LOADED = SettingsLoaded({}, [])


def reborn(vm: Vm) -> Vm:
    """The machine as a new MIGlet finds it in the journal."""
    return Vm.restore(json.loads(json.dumps(vm.to_json())), Policy(), Moment(AT, 50.0))


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
    assert Post(StartContinued()) in effects
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
    assert standing_orders(vm, 65.0)[-1].grace_seconds == 8.0
    assert standing_orders(vm, 99.0)[-1].grace_seconds == 0.0


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
    finished("failed", "failure", 102),
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
    StartContinued(),
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


#: The facts that reach the arbiter; others are between a worker and its child.
FACTS = sorted(
    (each for each in MESSAGES.values() if each.__module__ == facts.__name__),
    key=lambda each: each.__name__,
)


@pytest.mark.parametrize("state", list(State), ids=lambda each: each.value)
@pytest.mark.parametrize("kind", FACTS, ids=lambda each: each.__name__)
def test_every_fact_has_a_row_in_every_state_or_a_reason_to_be_ignored(state, kind):
    if kind is DeadlinePassed:
        assert all(timer.states for timer in TIMERS.values())
        return
    places = [TABLE[state], IGNORED[state], IGNORED_ANYWHERE]
    assert sum(kind in place for place in places) == 1


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


def test_an_orphaned_job_goes_on_and_is_completed_with_its_true_result():
    died = ListenerDied(RUN, None, 9, ["last words"])
    vm, effects = live(busy(), died, died)
    assert vm.state is State.JOB_RUNNING
    (crashed,) = events(effects)
    assert (crashed.type, crashed.signal, crashed.will_retry) == (
        "RunnerCrashed",
        9,
        False,
    )
    assert SetTimer("orphan", 600.0) in effects
    crash = {"exit_code": None, "signal": 9, "last_lines": []}
    vm, effects = live(vm, finished(crash=crash))
    assert types(effects) == ["JobCompleted", "VMShuttingDown"]
    assert events(effects)[0].result == "succeeded"


def test_an_orphan_that_outlives_its_lock_is_killed_as_a_crash_of_the_runner():
    vm, _ = live(busy(), ListenerDied(RUN, None, 9, []))
    vm, effects = live(vm, DeadlinePassed("orphan"))
    assert told(effects) == [StopRunner(grace_seconds=0.0, cause="orphan_timeout")]
    _, effects = live(vm, finished("unknown", "orphan_timeout", None))
    assert (events(effects)[0].result, events(effects)[0].cause) == (
        "unknown",
        "runner_crash",
    )


def test_a_stuck_worker_is_reported_and_its_job_completed_when_it_ends():
    stuck = RunnerTroubled(RUN, "worker_stuck", "no job message")
    vm, effects = live(busy(), stuck, finished("failed", "worker_stuck", 137))
    assert types(effects) == ["Error", "JobCompleted", "VMShuttingDown"]
    assert events(effects)[1].cause == "worker_stuck"


def test_an_announced_identity_is_never_changed_and_a_contradiction_is_reported():
    other = JobIdentified(RUN, "hook", {**IDENTITY, "job_id": "666"})
    vm, effects = live(busy(), other, other, finished())
    assert types(effects) == ["Error", "JobCompleted", "VMShuttingDown"]
    assert events(effects)[0].code == "job_identity_contradicted"
    references = [
        each.job.job_id for each in effects if isinstance(each, Emit) and each.job
    ]
    assert set(references) == {"555000111"}


def test_without_a_watcher_an_open_job_is_closed_and_the_machine_ends_with_70():
    vm, effects = live(busy(), WorkerLost("runner-watcher", 5, "exit status 1"))
    completed, error = events(effects)
    assert (completed.result, completed.cause) == ("unknown", "unknown")
    assert completed.evidence == ["runner_watcher_lost"]
    assert error.code == "runner_watcher_lost"
    assert KillRun(RUN) in effects
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 70)


def test_a_watcher_that_died_three_times_is_replaced_by_one_that_reads_no_logs():
    for deaths, minimal in ((2, False), (3, True)):
        _, effects = live(busy(), WorkerStarted("runner-watcher", 4711, 3, deaths))
        assert told(effects) == [WatchRunner(RUN, minimal)]


def test_a_registration_that_may_succeed_later_is_tried_again_but_not_for_ever():
    failed = RegistrationFailed("infrastructure", "launch_failed", "no", "", 69)
    vm, _ = live(fresh(max_restarts=2), PREPARED, ACKNOWLEDGED)
    delays = []
    for _ in range(2):
        vm, effects = live(vm, failed)
        assert types(effects) == ["Error"]
        delays += [each.delay_seconds for each in told(effects)]
    assert delays == [1.0, 2.0]
    assert (live(vm, failed)[0]).state is State.ERROR


REFUSED_VERSION = gone(evidence(None, None).add(VersionDeprecated(AT, "output", "x")))


def test_a_refused_version_is_reported_once_and_tried_for_ten_minutes():
    vm, effects = idle(), []
    for now in (50.0, 100.0, 600.0):
        vm, more = live(vm, REFUSED_VERSION, now=now)
        effects += more
        vm, more = live(vm, LAUNCHED, LISTENING, now=now)
        effects += more
    assert types(effects) == ["Error"]
    assert "2.336.0" in events(effects)[0].message
    vm, effects = live(vm, REFUSED_VERSION, now=651.0)
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 78)


def test_a_listener_that_is_started_again_is_no_new_registration():
    _, effects = live(idle(), gone(exit_code=2), LAUNCHED, LISTENING)
    assert "RunnerRegistered" not in types(effects)


def test_a_start_that_fails_like_the_one_before_it_sends_no_events():
    fault = {"id": "disk", "status": "fail", "detail": "d", "hint": "h"}
    failed = PreflightDone([{**fault, "category": "infrastructure"}], MACHINE)
    vm, effects = live(fresh(), failed)
    assert types(effects) == ["Error"]
    repeats = []
    for _ in range(3):
        vm, effects = live(vm, DeadlinePassed("error"), DeadlinePassed("flush"))
        assert (types(effects), effects[-1]) == ([], Exit(69))
        vm = reborn(vm.for_next_start())
        repeats.append(vm.failed_start.repeats)
        vm, effects = live(vm, LOADED, failed)
        assert types(effects) == []
    assert repeats == [0, 1, 2]


def test_a_start_after_one_that_failed_does_not_announce_the_machine_again():
    vm, _ = live(fresh(), PREPARED, DeadlinePassed("give_up"))
    vm = reborn(vm.for_next_start())
    vm, effects = live(vm, LOADED, PREPARED)
    assert types(effects) == []
    assert live(vm, ACKNOWLEDGED)[0].state is State.REGISTERING_RUNNER


def test_a_start_that_has_only_events_to_deliver_registers_nothing():
    vm, _ = live(busy(), finished(), REMOVED)
    vm, effects = live(vm, DeadlinePassed("flush"))
    assert effects == [Exit(75)]
    vm, effects = live(reborn(vm), LOADED, PREPARED, LISTENING, now=9000.0)
    assert (types(effects), told(effects)) == ([], [])
    assert effects == [SetTimer("flush", 600.0)]
    assert live(vm, EventsFlushed())[1] == [Exit(0)]


def test_nothing_is_reported_after_the_last_event():
    vm, effects = live(idle(), TERM, gone(), REMOVED)
    assert types(effects)[-1] == "VMStopped"
    late = [fact for fact in HISTORY if not isinstance(fact, DeadlinePassed)]
    assert types(live(vm, *late)[1]) == []


def test_an_announced_end_shortens_the_last_delivery():
    vm, _ = live(idle(), TERM, gone(), REMOVED)
    _, effects = live(vm, PREEMPTED)
    assert effects == [SetTimer("flush", 29.0)]


def test_a_token_in_the_metadata_does_not_need_the_controller_for_ever():
    vm, effects = live(fresh(token_in_metadata=True), PREPARED)
    assert SetTimer("unattended", 30.0) in effects
    vm, effects = live(vm, DeadlinePassed("unattended"))
    assert vm.state is State.REGISTERING_RUNNER
    assert StopTimer("give_up") in effects


def test_a_refused_start_lets_a_job_that_runs_by_then_finish():
    refused = EventRefused(1, "VMStarted", 404, "who?")
    vm, effects = live(busy(), refused)
    assert (vm.state, types(effects)) == (State.DRAINING, ["Error"])
    vm, effects = live(vm, finished())
    assert vm.end.exit_status == 77


def test_the_table_leads_only_where_the_states_are_documented_to_lead():
    documented = {
        State.INITIALIZING: {
            State.WAITING_FOR_CONTROLLER,
            State.SHUTTING_DOWN,
            State.ERROR,
        },
        State.WAITING_FOR_CONTROLLER: {
            State.REGISTERING_RUNNER,
            State.IDLE,
            State.JOB_RUNNING,
            State.DRAINING,
            State.SHUTTING_DOWN,
            State.ERROR,
        },
        State.REGISTERING_RUNNER: {
            State.IDLE,
            State.JOB_RUNNING,
            State.DRAINING,
            State.SHUTTING_DOWN,
            State.ERROR,
        },
        State.IDLE: {
            State.JOB_RUNNING,
            State.REGISTERING_RUNNER,
            State.DRAINING,
            State.SHUTTING_DOWN,
            State.ERROR,
        },
        State.JOB_RUNNING: {
            State.IDLE,
            State.REGISTERING_RUNNER,
            State.DRAINING,
            State.SHUTTING_DOWN,
            State.ERROR,
        },
        State.DRAINING: {State.SHUTTING_DOWN, State.ERROR},
        State.SHUTTING_DOWN: set(),
        State.ERROR: {State.SHUTTING_DOWN},
    }
    for state in State:
        assert leaves_to(state) <= documented[state], state
