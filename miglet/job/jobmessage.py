"""The job message that the Worker writes into its log, reduced to the job's identity.

It is large and full of what is nobody's business: it is collected up to a limit, read
once, and nothing but the identity is kept (actions/runner Worker.cs, "Job message:").
"""

from __future__ import annotations

import json
from typing import Any

from miglet.job.signs import JobIdentity, identity_of

LIMIT_BYTES = 4 * 1024 * 1024
_DEPTH = 8

#: The parts of a context value, by its type `t` (PipelineContextDataJsonConverter.cs).
_SCALARS = {0: "s", 3: "b", 4: "n"}


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """A context value as ordinary JSON; None where it is too deep or malformed."""
    if not isinstance(value, dict):
        return value if isinstance(value, (str, int, float)) else None
    kind = value.get("t", 0)
    if depth <= 0 or not isinstance(kind, int):
        return None
    if kind == 1:
        return [plain(item, depth - 1) for item in _list(value.get("a"))]
    if kind in (2, 5):
        return dict(_pairs(value, depth - 1))
    return plain(value.get(_SCALARS.get(kind, "")), 0)


def _pairs(value: dict[str, Any], depth: int) -> list[tuple[str, Any]]:
    return [
        (pair["k"], plain(pair.get("v"), depth))
        for pair in _list(value.get("d"))
        if isinstance(pair, dict) and isinstance(pair.get("k"), str)
    ]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _context(message: dict[str, Any], name: str) -> dict[str, Any]:
    contexts = message.get("contextData")
    context = plain(contexts.get(name)) if isinstance(contexts, dict) else None
    return context if isinstance(context, dict) else {}


def identity_in(text: str) -> JobIdentity | None:
    """The identity in a job message; None while `text` is not one, or not whole."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    github, job = _context(message, "github"), _context(message, "job")
    identity = identity_of(
        {
            **github,
            "job_id": job.get("check_run_id"),
            "name": message.get("jobDisplayName"),
            "commit": github.get("sha"),
        }
    )
    return identity if identity != JobIdentity() else None


class JobMessage:
    """Collects a message line by line until it is whole or too large."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._room = LIMIT_BYTES

    def add(self, line: bytes) -> JobIdentity | None:
        """The identity, once `line` completes the message.

        It is written indented, so only a brace at the margin can be its end.
        """
        self._lines.append(line)
        self._room -= len(line) + 1
        if self._room < 0 or not line.endswith(b"}") or line.startswith(b"  "):
            return None
        return identity_in(b"\n".join(self._lines).decode("utf-8", "replace"))

    @property
    def too_large(self) -> bool:
        """Whether it is to be given up."""
        return self._room < 0
