"""Events out of a last-resort file or a serial console's log, for ``import``.

An agent that could not deliver its events writes each as one line ``MIGLET-EVENT
{json}``. On a console the line has other lines around it, and a prefix such as a time
stamp; what follows the JSON is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from miglet.formats import strict_json

MARKER = "MIGLET-EVENT "

#: An event has at most 60 KiB; what is longer is none of ours.
MAX_LINE_CHARACTERS = 256 * 1024

#: What of an event says whose it is and where it belongs.
IDENTITY = {"id": str, "vm_id": str, "type": str, "sequence": int}


class FoundEvents(NamedTuple):
    """The events by machine and sequence, and what is wrong with other marked lines."""

    events: list[dict[str, Any]]
    problems: list[str]


def find_events(lines: Iterable[str]) -> FoundEvents:
    """Each event once, in the order of its machine's sequence."""
    events: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        _, marker, text = line.partition(MARKER)
        if not marker:
            continue
        try:
            event = _event_of(text)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
        else:
            events.setdefault(event["id"], event)
    ordered = sorted(
        events.values(), key=lambda each: (each["vm_id"], each["sequence"])
    )
    return FoundEvents(ordered, problems)


def _event_of(text: str) -> dict[str, Any]:
    """The event at the beginning of `text`; raises ValueError."""
    if len(text) > MAX_LINE_CHARACTERS:
        raise ValueError(f"longer than {MAX_LINE_CHARACTERS} characters")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    event = strict_json(text[:end].encode())
    for key, kind in IDENTITY.items():
        value = event.get(key) if isinstance(event, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"not an event: {key} is missing or no {kind.__name__}")
    return event
