"""Cuts what is too large for a message down to what fits.

Keys stay and values are shortened, the longest first: an event with a clipped error
text is worth more than no event.
"""

from __future__ import annotations

import json
from typing import Any

#: Of one event, as JSON in ASCII; with its envelope it must fit a message of 64 KiB.
EVENT_BYTES = 60 * 1024

#: How deep a value may be nested before it is replaced.
_DEPTH = 16


def encoded(value: Any) -> bytes:
    """The value as JSON, ASCII only; ValueError for NaN and infinities."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def fitted(event: dict[str, Any], limit: int = EVENT_BYTES) -> dict[str, Any]:
    """The event itself if it fits `limit` bytes, else one with clipped values.

    A clipped one says so with ``"truncated": true`` in its ``metadata``.
    """
    if len(encoded(event)) <= limit:
        return event
    for allowed in (4096, 1024, 256, 64, 16):
        clipped = _marked(_clipped(event, allowed, _DEPTH))
        if len(encoded(clipped)) <= limit:
            return clipped
    return _marked({**clipped, "data": {}, "metadata": {}})


def _marked(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "metadata": {**(event.get("metadata") or {}), "truncated": True}}


def _clipped(value: Any, allowed: int, depth: int) -> Any:
    if isinstance(value, str):
        return value[:allowed]
    if isinstance(value, (dict, list, tuple)) and depth == 0:
        return None
    if isinstance(value, dict):
        return {key: _clipped(item, allowed, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clipped(item, allowed, depth - 1) for item in value[: allowed // 8]]
    return value
