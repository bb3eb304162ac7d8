"""What comes from the controller as a command, held against the form of one.

Only the form: whether a command is known and its parameters make sense is examined
apart. Nothing that arrives here can be too odd: it is refused with a reason.
"""

from __future__ import annotations

import json
from typing import Any

from miglet.controller.answers import EARLIEST_EXPIRY
from miglet.formats import parse_rfc3339
from miglet.messages.facts import CommandReceived

#: Most bytes of a command's parameters.
PARAMETERS_LIMIT = 32 * 1024

#: How deep parameters may be nested.
DEPTH_LIMIT = 20

#: Most characters of an id or a type.
NAME_LIMIT = 128


def received(raw: object) -> CommandReceived:
    """The command in `raw`, with every fault of its form."""
    if not isinstance(raw, dict):
        return CommandReceived("", "", {}, None, ["the command is not an object"])
    faults: list[str] = []
    parameters = _parameters(raw.get("parameters"), faults)
    return CommandReceived(
        id=_name(raw, "id", faults),
        type=_name(raw, "type", faults),
        parameters=parameters,
        expires_at=_expiry(raw.get("expires_at"), faults),
        faults=faults,
    )


def _name(raw: dict[str, Any], key: str, faults: list[str]) -> str:
    value = raw.get(key)
    if isinstance(value, str) and 0 < len(value) <= NAME_LIMIT and value.isprintable():
        return value
    faults.append(f"{key} is not a text of 1 to {NAME_LIMIT} printable characters")
    return ""


def _parameters(value: object, faults: list[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append("parameters is not an object")
    elif not _shallow(value, DEPTH_LIMIT):
        faults.append(f"parameters are nested deeper than {DEPTH_LIMIT}")
    else:
        try:
            if len(json.dumps(value, allow_nan=False)) <= PARAMETERS_LIMIT:
                return value
            faults.append(f"parameters are larger than {PARAMETERS_LIMIT} bytes")
        except ValueError:
            faults.append("parameters have a number that JSON does not have")
    return {}


def _shallow(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_shallow(each, depth - 1) for each in parts)


def _expiry(value: object, faults: list[str]) -> float | None:
    if value is None or value == "":
        return None
    at = parse_rfc3339(value) if isinstance(value, str) else None
    if at is None:
        faults.append("expires_at is not a time such as 2026-01-15T10:30:00Z")
        return None
    return None if at < EARLIEST_EXPIRY else at
