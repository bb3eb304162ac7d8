"""What the controller knows of its machines, as operators see it. Nothing is written.

What can be computed when asked is not stored: gaps, counts, repeated sequences.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from miglet.reference.database import rfc3339_or_null

#: Events in one answer to an operator.
EVENTS_AT_ONCE = 500

#: Sequences missing before each stored one, counted from 1.
GAPS = """
SELECT before + 1 AS first, sequence - 1 AS last FROM (
    SELECT sequence, LAG(sequence, 1, 0) OVER (ORDER BY sequence) AS before
    FROM events WHERE vm_id = ? AND sequence IS NOT NULL
) WHERE sequence > before + 1
"""

EVENT_COUNTS = "SELECT type, COUNT(*) FROM events WHERE vm_id = ? GROUP BY type"

COMMAND_COUNTS = """
SELECT COUNT(*), COUNT(*) - COUNT(completed_at) FROM commands WHERE vm_id = ?
"""

#: How many events have a sequence that another event had before.
REPEATED = """
SELECT COUNT(sequence) - COUNT(DISTINCT sequence) FROM events WHERE vm_id = ?
"""


class Views:
    """Reads what `Store` wrote."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def knows(self, vm_id: str) -> bool:
        """Whether the machine has ever called."""
        return bool(self._machine(vm_id))

    def has_ended(self, vm_id: str) -> bool:
        """Whether the machine said VMShuttingDown and has not started since."""
        row = self._machine(vm_id)
        return row is not None and bool(row["ended"])

    def machine_ids(self) -> list[str]:
        """Every machine that has ever called, in order of name."""
        rows = self._db.execute("SELECT vm_id FROM machines ORDER BY vm_id")
        return [row["vm_id"] for row in rows]

    def machine(self, vm_id: str) -> dict[str, Any] | None:
        """All there is to tell about a machine but its health; None: never called."""
        row = self._machine(vm_id)
        if row is None:
            return None
        last = row["last_heartbeat"]
        return {
            "vm_id": vm_id,
            "pool_id": row["pool_id"],
            "org_id": row["org_id"],
            "state": row["state"],
            "first_seen_at": rfc3339_or_null(row["first_seen_at"]),
            "last_heartbeat_at": rfc3339_or_null(row["last_heartbeat_at"]),
            "last_heartbeat": json.loads(last) if last else None,
            "counts": self._counts(row),
            "gaps": self.gaps(vm_id),
            "repeated_sequences": self._numbers(REPEATED, vm_id)[0],
        }

    def gaps(self, vm_id: str) -> list[dict[str, int]]:
        """Runs of sequences that never came, counted from 1."""
        return [dict(row) for row in self._db.execute(GAPS, (vm_id,))]

    def events(self, vm_id: str, after: int) -> list[dict[str, Any]]:
        """Events that came after position `after`, oldest first, at most 500."""
        rows = self._db.execute(
            "SELECT * FROM events WHERE vm_id = ? AND position > ?"
            " ORDER BY position LIMIT ?",
            (vm_id, after, EVENTS_AT_ONCE),
        )
        return [{**_times(row), "event": json.loads(row["body"])} for row in rows]

    def heartbeats(self, vm_id: str) -> list[dict[str, Any]]:
        """The kept heartbeats, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM heartbeats WHERE vm_id = ? ORDER BY position", (vm_id,)
        )
        return [{**_times(row), "heartbeat": json.loads(row["body"])} for row in rows]

    def highest_sequence(self, vm_id: str) -> int:
        """The highest sequence stored; 0 if there is none."""
        query = "SELECT COALESCE(MAX(sequence), 0) FROM events WHERE vm_id = ?"
        return self._numbers(query, vm_id)[0]

    def _machine(self, vm_id: str) -> sqlite3.Row | None:
        query = "SELECT * FROM machines WHERE vm_id = ?"
        return self._db.execute(query, (vm_id,)).fetchone()

    def _counts(self, row: sqlite3.Row) -> dict[str, Any]:
        vm_id = row["vm_id"]
        commands, commands_open = self._numbers(COMMAND_COUNTS, vm_id)
        return {
            "events": dict(map(tuple, self._db.execute(EVENT_COUNTS, (vm_id,)))),
            "duplicates": row["duplicates"],
            "refused": row["refused"],
            "heartbeats": row["heartbeats"],
            "commands": commands,
            "commands_open": commands_open,
        }

    def _numbers(self, query: str, vm_id: str) -> tuple[int, ...]:
        return tuple(self._db.execute(query, (vm_id,)).fetchone())


def _times(row: sqlite3.Row) -> dict[str, Any]:
    return {key: row[key] for key in ("position", "received_at", "received_mono")}
