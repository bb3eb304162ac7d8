"""What the child that validates may change."""

from __future__ import annotations

import pytest

from miglet.commands.intake import validation_task, with_settings_checked
from miglet.lifecycle.effects import ChangeSettings
from miglet.lifecycle.table import step
from miglet.lifecycle.vm import Moment, State
from miglet.messages.facts import (
    CommandReceived,
    CommandValidated,
)
from tests.histories import events, idle, live
from tests.sample_settings import sample_settings

NOW = Moment(1000.0, 50.0)

IN_FORCE = sample_settings()


def answer_with(changes: dict) -> CommandValidated:
    settings = IN_FORCE.replaced(changes).as_dict()
    return CommandValidated("c-1", "UpdateConfig", {}, settings=settings)


def test_the_answer_of_a_child_may_change_what_may_change():
    fact = answer_with({"heartbeat.interval": 20.0})
    assert with_settings_checked(fact, IN_FORCE) == fact


@pytest.mark.parametrize(
    "changes",
    [
        {"runner.user": None},
        {"runner.directory": "/dev/shm/evil"},
        {"controller.endpoint": "https://evil.example"},
        {"runner.isolation": "process", "heartbeat.interval": 20.0},
    ],
)
def test_the_answer_of_a_child_changes_nothing_that_needs_a_restart(changes):
    fact = with_settings_checked(answer_with(changes), IN_FORCE)
    assert fact.settings is None
    assert f"cannot change at run time: {next(iter(changes))}" in fact.faults
    vm, effects = live(idle(), fact)
    assert not [each for each in effects if isinstance(each, ChangeSettings)]
    assert events(effects)[-1].outcome == "rejected"


@pytest.mark.parametrize(
    "changes",
    [
        {"heartbeat.interval": 0.0},
        {"metrics.collection_interval": 1e-9},
        {"controller.timeout": -1.0},
        {"controller.retry.max_attempts": 0},
        {"shutdown.delivery_timeout": 1e300},
    ],
)
def test_the_answer_of_a_child_changes_nothing_to_what_no_setting_may_be(changes):
    fact = with_settings_checked(answer_with(changes), IN_FORCE)
    assert fact.settings is None
    assert fact.faults == [f"out of range: {next(iter(changes))}"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"runner": {"user": None}}, {**IN_FORCE.as_dict(), "heartbeat": 7}],
)
def test_the_answer_of_a_child_is_no_settings_if_it_is_not_whole(settings):
    fact = CommandValidated("c-1", "UpdateConfig", {}, settings=settings)
    checked = with_settings_checked(fact, IN_FORCE)
    assert checked.settings is None and "malformed settings" in checked.faults[0]


def test_a_command_whose_validation_is_lost_has_failed_and_is_not_rejected():
    order = CommandReceived("c", "Drain", {})
    lost = validation_task(order, {}, NOW.at).fallback
    vm, effects = live(idle(), lost)
    (answer,) = events(effects)
    assert (vm.state, vm.commands) == (State.IDLE, {})
    assert (answer.command_id, answer.outcome) == ("c", "failed")
    assert "died or did not end" in answer.reason
    assert step(vm, lost, NOW) == (vm, [])
