"""Child tasks that validate a command or a changed configuration.

This side stays light: what a validation needs (YAML, JSON Schema) is imported only in
the child, and gone with it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from miglet.config.section import MalformedSettings
from miglet.config.settings import RUNTIME_KEYS, RUNTIME_LIMITS, Settings
from miglet.messages.facts import CommandReceived, CommandValidated
from miglet.supervisor.children import ChildTask, by_name
from miglet.supervisor.privileges import TASK_USER

#: Seconds that a validation may take.
LIMIT_SECONDS = 10.0

#: The module that the children run.
MODULE = "miglet.commands.validation"

#: The names of the children: one that validates a command, and the one that reads the
#: configuration again. The kernel keeps 15 characters.
VALIDATION = "validation"
RELOAD = "reload"

#: The answer to a command whose validation gave no result.
LOST = "the process that validates it died or did not end; MIGlet's log says why"


#: What the answer of a child has in common with what was asked.
FIXED = ("id", "type", "requested_by")

log = logging.getLogger(__name__)


def validation_task(
    fact: CommandReceived, current: dict[str, Any], controllers_now: float
) -> ChildTask:
    """Validate this command against the `current` settings and their origins.

    `controllers_now` is the wall time by the controller's clock.
    """
    faults = [*fact.faults, *_expired(fact, controllers_now)]
    command = {"id": fact.id, "type": fact.type, "parameters": fact.parameters}
    main = by_name(MODULE, "validate_command", command, faults, current, user=TASK_USER)
    fallback = CommandValidated(fact.id, fact.type, {}, failure=LOST)
    return ChildTask(VALIDATION, main, LIMIT_SECONDS, fallback, fixed=FIXED)


def reload_task(sources: dict[str, Any], current: dict[str, Any]) -> ChildTask:
    """Read the configuration again, because of SIGHUP."""
    main = by_name(MODULE, "validate_reload", sources, current)
    fallback = CommandValidated(
        "", "UpdateConfig", {}, requested_by="SIGHUP", failure=LOST
    )
    return ChildTask(RELOAD, main, LIMIT_SECONDS, fallback, fixed=FIXED)


def with_settings_checked(
    fact: CommandValidated, current: Settings
) -> CommandValidated:
    """The fact, refused if its settings are not what a child may change.

    The child has read untrusted input, so its answer is not trusted: settings that
    take effect at the next start decide who the runner is, and where.
    """
    if fact.settings is None or fact.faults or fact.failure:
        return fact
    try:
        changed = Settings.of(fact.settings).flat()
    except MalformedSettings as error:
        return _refused(fact, f"malformed settings: {error}")
    before = current.flat()
    fixed = before.keys() - RUNTIME_KEYS
    late = sorted(key for key in fixed if changed[key] != before[key])
    if late:
        return _refused(fact, f"cannot change at run time: {', '.join(late)}")
    limits = RUNTIME_LIMITS.items()
    wild = [key for key, (least, most) in limits if not least <= changed[key] <= most]
    if wild:
        return _refused(fact, f"out of range: {', '.join(wild)}")
    return fact


def _refused(fact: CommandValidated, reason: str) -> CommandValidated:
    log.error("%s by %s: %s", fact.type, fact.requested_by, reason)
    return replace(fact, settings=None, origins=None, faults=[reason])


def _expired(fact: CommandReceived, controllers_now: float) -> list[str]:
    if fact.expires_at is None:
        return []
    late = controllers_now - fact.expires_at
    return [f"it expired {late:.0f} s ago"] if late > 0 else []
