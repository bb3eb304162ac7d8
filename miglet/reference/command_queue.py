"""Commands on their way to machines.

A command is handed out until its CommandCompleted has arrived, so one that was lost
with a connection is not lost; but again only after the lease of the time before.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any

from miglet.reference.database import Arrival, rfc3339_or_null

#: How long a machine has to complete a command before it is given it again. The
#: agent executes an id once, so a repetition costs one poll and no more.
LEASE_SECONDS = 5.0

#: Commands in one answer: with 64 KiB each, well below the 1 MiB that agents read.
MOST_AT_ONCE = 8

OPEN = "SELECT * FROM commands WHERE vm_id = ? AND completed_at IS NULL ORDER BY rowid"


class CommandQueue:
    """What is to be told to which machine, in the order it was asked for."""

    def __init__(
        self, db: sqlite3.Connection, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self._db = db
        self._lease_seconds = lease_seconds
        #: Command id to the monotonic time until which it is not handed out again. In
        #: memory only: after a restart each open command is handed out at once.
        self._leased_until: dict[str, float] = {}

    def add(self, vm_id: str, request: Mapping[str, Any], at: float) -> str:
        """Queue a command (type, parameters, expires_at) and return its new id."""
        command_id = str(uuid.uuid4())
        row = (
            command_id,
            vm_id,
            request["type"],
            json.dumps(request.get("parameters") or {}),
            at,
            request.get("expires_at"),
        )
        with self._db:
            self._db.execute(
                "INSERT INTO commands (id, vm_id, type, parameters, created_at,"
                " expires_at) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
        return command_id

    def claim(self, vm_id: str, arrival: Arrival) -> list[dict[str, Any]]:
        """Commands to hand out now, oldest first; each gets a lease."""
        rows = [row for row in self._open(vm_id) if self._is_free(row, arrival.now)]
        for row in rows[:MOST_AT_ONCE]:
            self._leased_until[row["id"]] = arrival.now + self._lease_seconds
            self._note_handed_out(row["id"], arrival.at)
        return [_wire_form(row) for row in rows[:MOST_AT_ONCE]]

    def lease_left(self, vm_id: str, now: float) -> float:
        """Seconds until a lease ends; infinite if no command is open."""
        ends = [self._leased_until.get(row["id"], now) for row in self._open(vm_id)]
        return max(0.0, min(ends) - now) if ends else float("inf")

    def status(self, vm_id: str, command_id: str) -> dict[str, Any] | None:
        """What became of a command; None if the machine has none of this id."""
        row = self._db.execute(
            "SELECT * FROM commands WHERE vm_id = ? AND id = ?", (vm_id, command_id)
        ).fetchone()
        return _progress(row) if row else None

    def forget_lease(self, command_id: str) -> None:
        """The command is completed: nothing of it need be remembered."""
        self._leased_until.pop(command_id, None)

    def _open(self, vm_id: str) -> list[sqlite3.Row]:
        return self._db.execute(OPEN, (vm_id,)).fetchall()

    def _is_free(self, row: sqlite3.Row, now: float) -> bool:
        return self._leased_until.get(row["id"], now) <= now

    def _note_handed_out(self, command_id: str, at: float) -> None:
        with self._db:
            self._db.execute(
                "UPDATE commands SET times_handed_out = times_handed_out + 1,"
                " handed_out_at = ? WHERE id = ?",
                (at, command_id),
            )


def complete(
    db: sqlite3.Connection, vm_id: str, completed: Mapping[str, Any], at: float
) -> None:
    """Note a command's outcome, within the caller's transaction; the first counts."""
    db.execute(
        "UPDATE commands SET completed_at = ?, outcome = ?, reason = ?"
        " WHERE vm_id = ? AND id = ? AND completed_at IS NULL",
        (
            at,
            completed["outcome"],
            completed["reason"],
            vm_id,
            completed["command_id"],
        ),
    )


def _wire_form(row: sqlite3.Row) -> dict[str, Any]:
    command = {
        "id": row["id"],
        "type": row["type"],
        "parameters": json.loads(row["parameters"]),
        "created_at": rfc3339_or_null(row["created_at"]),
    }
    if row["expires_at"] is not None:
        command["expires_at"] = row["expires_at"]
    return command


def _progress(row: sqlite3.Row) -> dict[str, Any]:
    status = "handed_out" if row["times_handed_out"] else "queued"
    return {
        **_wire_form(row),
        "expires_at": row["expires_at"],
        "status": status if row["completed_at"] is None else "completed",
        "times_handed_out": row["times_handed_out"],
        "handed_out_at": rfc3339_or_null(row["handed_out_at"]),
        "completed_at": rfc3339_or_null(row["completed_at"]),
        "outcome": row["outcome"],
        "reason": row["reason"],
    }
