"""The lifecycle: histories of facts, and what the machine makes of them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.lifecycle.effects import (
    SetTimer,
    StopTimer,
)
from miglet.lifecycle.table import (
    IGNORED,
    IGNORED_ANYWHERE,
    TABLE,
    TIMERS,
    change_policy,
    leaves_to,
)
from miglet.lifecycle.vm import Moment, Policy, State
from miglet.messages import facts
from miglet.messages.codec import MESSAGES
from miglet.messages.facts import (
    DeadlinePassed,
    EventSetAside,
)
from tests.cases import MANY_EXAMPLES
from tests.histories import (
    ACKNOWLEDGED,
    AT,
    PREPARED,
    busy,
    fresh,
    idle,
    live,
    types,
)
from tests.lifecycle.facts import HISTORY, LOADED, reborn


def test_changed_settings_hold_for_a_runner_that_waits_and_a_job_that_runs():
    policy = Policy(idle_timeout=10.0, max_job_duration=20.0)
    later = Moment(AT + 4.0, 54.0)
    vm, effects = change_policy(idle(), policy, later)
    assert vm.policy == policy
    assert effects == [SetTimer("idle", 6.0)]
    assert change_policy(vm, Policy(), later)[1] == [StopTimer("idle")]
    assert change_policy(busy(), policy, later)[1] == [SetTimer("max_job", 16.0)]


def test_every_state_has_a_row_and_a_way_out():
    for state in State:
        assert TABLE[state]
        if state is not State.SHUTTING_DOWN:
            assert leaves_to(state) - {state}


def test_every_state_can_be_reached():
    reached = {State.INITIALIZING}.union(*(leaves_to(state) for state in State))
    assert reached == set(State)


@pytest.mark.parametrize(
    "code, last, expected",
    [
        ("", False, ["Error"]),
        ("", True, []),
        ("event_set_aside", False, []),
        ("other", False, ["Error"]),
    ],
)
def test_an_event_that_is_set_aside_is_reported_once(code, last, expected):
    fact = EventSetAside(7, "JobCompleted", code, "500", last)
    _, effects = live(fresh(), PREPARED, ACKNOWLEDGED, fact)
    assert [name for name in types(effects) if name != "VMStarted"] == expected


@MANY_EXAMPLES
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
def test_every_fact_has_a_row_in_every_state_or_a_reason_to_be_ignored(state):
    places = [TABLE[state], IGNORED[state], IGNORED_ANYWHERE]
    found = {kind: sum(kind in place for place in places) for kind in FACTS}
    del found[DeadlinePassed]  # the timers name the states in which they run
    assert [kind.__name__ for kind, count in found.items() if count != 1] == []


def test_every_timer_runs_in_a_state():
    assert all(timer.states for timer in TIMERS.values())


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
