"""Runs every check at once and puts together what they found, for events and people.

A check that does not come to an end in time is answered for; its thread is left behind
and ends with the process, which is short-lived.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from miglet.config.settings import Settings
from miglet.preflight.registry import (
    CHECKS,
    Check,
    Finding,
    Look,
    Notable,
    Unavailable,
)

#: Seconds before the end of bootstrap.timeout at which a check counts as hung.
MARGIN_SECONDS = 1.0

#: Seconds that a check which keeps its deadline may be late with its answer.
LATE_SECONDS = 0.2

Row = dict[str, Any]


def report(settings: Settings, checks: dict[str, Check] | None = None) -> list[Row]:
    """Each check's id, status, milliseconds, detail, hint and category."""
    wanted = CHECKS if checks is None else checks
    answers: queue.SimpleQueue[Row] = queue.SimpleQueue()
    deadlines = {name: _deadline(check, settings) for name, check in wanted.items()}
    for name, check in wanted.items():
        target = (answers, name, check.look, settings, deadlines[name])
        threading.Thread(target=_answer, args=target, daemon=True).start()
    rows = {name: _hung(name, check, settings) for name, check in wanted.items()}
    awaited = dict(deadlines)
    while awaited:
        left = max(awaited.values()) + LATE_SECONDS - time.monotonic()
        try:
            row = answers.get(timeout=max(0.0, left))
        except queue.Empty:
            break
        rows[row["id"]] = row
        del awaited[row["id"]]
    return list(rows.values())


def _deadline(check: Check, settings: Settings) -> float:
    limit = settings.bootstrap.timeout
    most = max(limit / 2, limit - MARGIN_SECONDS)
    return time.monotonic() + min(most, check.seconds or most)


def _answer(
    answers: queue.SimpleQueue[Row],
    name: str,
    look: Look,
    settings: Settings,
    deadline: float,
) -> None:
    answers.put(outcome(name, look, settings, deadline))


def outcome(name: str, look: Look, settings: Settings, deadline: float) -> Row:
    """What one check found, and how long it took."""
    began = time.monotonic()
    row: Row = {"id": name, "status": "ok", "hint": "", "category": ""}
    try:
        row["detail"] = look(settings, deadline)
    except Finding as finding:
        row |= _told(finding)
    except OSError as error:
        row |= _told(Unavailable(f"cannot be checked: {error}", "see the message"))
    row["milliseconds"] = round((time.monotonic() - began) * 1000, 1)
    return row


def _told(finding: Finding) -> Row:
    return {
        "status": finding.status,
        "detail": str(finding),
        "hint": finding.hint,
        "category": finding.category,
    }


def _hung(name: str, check: Check, settings: Settings) -> Row:
    """What is said of a check that never answers."""
    seconds = check.seconds or settings.bootstrap.timeout
    kind = Notable if check.seconds else Unavailable
    hung = kind(f"no answer within {seconds:g} s", "see bootstrap.timeout")
    return {"id": name, "milliseconds": seconds * 1000, **_told(hung)}


def table(rows: list[Row]) -> str:
    """The report for people: a line a check, one more for each hint, and a count."""
    lines = []
    for row in rows:
        took = f"{row['milliseconds']:.0f} ms"
        lines.append(f"{row['status']:<5} {row['id']:<22} {took:>8}  {row['detail']}")
        if row["hint"]:
            lines.append(f"{'':<5} {'':<22} {'':>8}  -> {row['hint']}")
    counts = {name: sum(row["status"] == name for row in rows) for name in STATUSES}
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    return "\n".join([*lines, "", f"{len(rows)} checks: {told}"])


STATUSES = ("ok", "warn", "fail")
