"""Every effect that a rule may ask for is one that the arbiter performs."""

from __future__ import annotations

from miglet.agent.arbiter import PERFORMERS
from miglet.lifecycle import effects
from miglet.lifecycle.effects import ChangeSettings, Effect, Emit, SetTimer
from miglet.messages.events import Error

EFFECTS = Effect.__subclasses__()


def test_every_effect_is_performed():
    """An Emit becomes durable with the state, before the others are performed."""
    performed = {each.__name__ for each in PERFORMERS}
    assert performed | {Emit.__name__} == {each.__name__ for each in EFFECTS}


def test_effects_of_the_same_content_are_equal_so_that_rules_can_be_tested():
    assert SetTimer("idle", 3.0) == SetTimer("idle", 3.0) != SetTimer("idle", 4.0)
    error = Error("user", "code", "message", "component")
    assert Emit(error) == Emit(Error("user", "code", "message", "component"))


def test_settings_are_not_shown_with_their_values():
    assert "hunter2" not in repr(ChangeSettings({"controller": {"proxy": "hunter2"}}))


def test_every_effect_says_what_it_does():
    assert all(each.__doc__ for each in EFFECTS)
    assert all(each.__module__ == effects.__name__ for each in EFFECTS)
