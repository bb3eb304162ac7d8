"""Errands that examine a command or a changed configuration.

This side stays light: what an examination needs (YAML, JSON Schema) is imported in
the child that makes it, and gone with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from miglet.messages.codec import Fact
from miglet.messages.facts import CommandExamined, CommandReceived
from miglet.supervisor.children import by_name
from miglet.supervisor.queues import Queue

#: Seconds that an examination may take.
LIMIT_SECONDS = 10.0

EXAMINER = "miglet.commands.validation"

#: The name of the child that reads the configuration again.
RELOAD = "reload"

#: What a failed examination is answered with.
FAILED = "the examination of the command failed; MIGlet's log says why"


class ErrandPlan(NamedTuple):
    """What `Errands.send` takes."""

    name: str
    main: Callable[[Queue], None]
    limit: float
    otherwise: Fact


def errand_for(
    fact: CommandReceived, current: dict[str, Any], controllers_now: float
) -> ErrandPlan:
    """Examine this command against the `current` settings and their origins.

    `controllers_now` is the wall time by the controller's clock.
    """
    faults = [*fact.faults, *_expired(fact, controllers_now)]
    command = {"id": fact.id, "type": fact.type, "parameters": fact.parameters}
    main = by_name(EXAMINER, "examine_command", command, faults, current)
    otherwise = CommandExamined(fact.id, fact.type, {}, [FAILED])
    return ErrandPlan("examiner", main, LIMIT_SECONDS, otherwise)


def reload_errand(sources: dict[str, Any], current: dict[str, Any]) -> ErrandPlan:
    """Read the configuration again, because of SIGHUP."""
    main = by_name(EXAMINER, "examine_reload", sources, current)
    otherwise = CommandExamined("", "UpdateConfig", {}, [FAILED], requested_by="SIGHUP")
    return ErrandPlan(RELOAD, main, LIMIT_SECONDS, otherwise)


def _expired(fact: CommandReceived, controllers_now: float) -> list[str]:
    if fact.expires_at is None:
        return []
    late = controllers_now - fact.expires_at
    return [f"it expired {late:.0f} s ago"] if late > 0 else []
