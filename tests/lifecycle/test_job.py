"""A job: announced once, completed once, with what was learnt of it."""

from __future__ import annotations

import dataclasses

from miglet.lifecycle.effects import (
    Emit,
    KillRun,
    SetTimer,
)
from miglet.lifecycle.table import (
    step,
)
from miglet.lifecycle.vm import Moment, State
from miglet.messages import facts
from miglet.messages.facts import (
    DeadlinePassed,
    JobIdentified,
    ListenerDied,
    RunnerFailing,
    WorkerLost,
)
from miglet.messages.orders import StopRunner
from tests.histories import (
    AT,
    IDENTIFIED,
    IDENTITY,
    LAUNCHED,
    LISTENING,
    RUN,
    SEEN,
    busy,
    events,
    evidence,
    finished,
    gone,
    idle,
    live,
    orders,
    types,
)


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


def test_the_end_of_a_runner_that_had_reported_its_result_changes_nothing_more():
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


def test_keys_that_a_watcher_adds_to_the_end_of_a_run_are_ignored():
    end = gone(exit_code=0)
    added = dataclasses.replace(end, runner_exit={**end.runner_exit, "mood": "good"})
    assert live(busy(), added) == live(busy(), end)


def test_a_job_is_completed_once_whatever_is_reported_twice():
    vm, effects = live(busy(), finished(), finished(), gone(evidence()), SEEN)
    assert types(effects).count("JobCompleted") == 1
    assert vm.job is None


def test_facts_of_another_run_are_stale():
    other = facts.JobSeen("f" * 32, "output", AT)
    assert live(idle(), other) == (idle(), [])


def test_a_run_that_is_over_is_not_taken_for_the_next_one():
    vm, _ = live(busy(after_job="register"), finished(), gone(evidence()))
    assert live(vm, LISTENING, SEEN, IDENTIFIED, finished()) == (vm, [])


def test_a_run_whose_job_is_reported_is_not_launched_again():
    vm, _ = live(busy(after_job="register"), finished())
    assert live(vm, LAUNCHED, LISTENING, SEEN, finished()) == (vm, [])


def test_durations_do_not_follow_the_wall_clock():
    vm, _ = live(idle(), SEEN, IDENTIFIED, now=50.0)
    _, effects = step(vm, finished(), Moment(AT - 3600.0, 57.5))
    completed = effects[-1] and next(
        each.event for each in effects if getattr(each, "event", None)
    )
    assert completed.duration_seconds == 7.5


def test_a_job_over_its_limit_is_stopped_as_a_timeout():
    vm, effects = live(idle(max_job_duration=60.0), SEEN, IDENTIFIED)
    assert SetTimer("max_job", 60.0) in effects
    vm, effects = live(vm, DeadlinePassed("max_job"))
    assert orders(effects) == [StopRunner(cause="timeout")]
    vm, effects = live(vm, gone(evidence("Canceled", 102)))
    assert events(effects)[0].cause == "timeout"


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
    assert orders(effects) == [StopRunner(grace_seconds=0.0, cause="orphan_timeout")]
    _, effects = live(vm, finished("unknown", "orphan_timeout", None))
    assert (events(effects)[0].result, events(effects)[0].cause) == (
        "unknown",
        "runner_crash",
    )


def test_a_stuck_worker_is_reported_and_its_job_completed_when_it_ends():
    stuck = RunnerFailing(RUN, "worker_stuck", "no job message")
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
