"""What machines report goes into the database here, and nowhere else.

An event is on the disk before it is acknowledged; events are kept for good, of
heartbeats the last thousand of each machine.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from enum import Enum
from typing import Any

from miglet.reference.command_queue import complete
from miglet.reference.database import Arrival, wall

#: Heartbeats kept of each machine.
HEARTBEATS_KEPT = 1000

#: What these events say about whether the machine has come to its end.
ENDED = {"VMStarted": False, "VMShuttingDown": True}


class Kept(Enum):
    """What came of an event: stored, stored before, or its id belongs to another."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Store:
    """Writes machines, events and heartbeats; `views` reads them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def meet(self, vm_id: str, at: float) -> None:
        """Remember a machine from its first call on."""
        with self._db:
            self._db.execute(
                "INSERT OR IGNORE INTO machines (vm_id, first_seen_at) VALUES (?, ?)",
                (vm_id, at),
            )

    def keep_event(self, vm_id: str, event: Mapping[str, Any], came: Arrival) -> Kept:
        """Store an event once; on return it is on the disk."""
        stored = self._db.execute(
            "SELECT body FROM events WHERE vm_id = ? AND id = ?", (vm_id, event["id"])
        ).fetchone()
        if stored is None:
            with self._db:
                self._insert_event(vm_id, event, came)
                self._note_reported_by_event(vm_id, event)
            return Kept.NEW
        if _canonical(json.loads(stored["body"])) != _canonical(event):
            return Kept.CONFLICT
        self._count(vm_id, "duplicates")
        return Kept.DUPLICATE

    def keep_heartbeat(
        self, vm_id: str, beat: Mapping[str, Any], came: Arrival
    ) -> None:
        """Store a heartbeat and drop the one that is a thousand older."""
        body = json.dumps(beat)
        with self._db:
            self._db.execute(
                "INSERT INTO heartbeats (vm_id, body, received_at, received_mono)"
                " VALUES (?, ?, ?, ?)",
                (vm_id, body, *came),
            )
            self._drop_old_heartbeats(vm_id)
            self._db.execute(
                "UPDATE machines SET heartbeats = heartbeats + 1, last_heartbeat = ?,"
                " last_heartbeat_at = ?, reported_at = ?, state = ?, pool_id = ?,"
                " org_id = ? WHERE vm_id = ?",
                (
                    body,
                    came.at,
                    wall(beat["timestamp"]),
                    beat["miglet_state"],
                    beat["pool_id"],
                    beat["org_id"],
                    vm_id,
                ),
            )

    def count_refused(self, vm_id: str) -> None:
        """One more event of this machine was not valid."""
        self._count(vm_id, "refused")

    def _insert_event(
        self, vm_id: str, event: Mapping[str, Any], came: Arrival
    ) -> None:
        self._db.execute(
            "INSERT INTO events (vm_id, id, sequence, type, body, received_at,"
            " received_mono) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                vm_id,
                event["id"],
                event["sequence"],
                event["type"],
                json.dumps(event),
                *came,
            ),
        )
        if event["type"] == "CommandCompleted":
            complete(self._db, vm_id, event["data"], came.at)

    def _note_reported_by_event(self, vm_id: str, event: Mapping[str, Any]) -> None:
        """An event may be late: it tells the state if no later heartbeat did."""
        self._db.execute(
            "UPDATE machines SET state = ?, pool_id = ?, org_id = ?"
            " WHERE vm_id = ? AND COALESCE(reported_at, 0) <= ?",
            (
                event["state"],
                event["pool_id"],
                event["org_id"],
                vm_id,
                wall(event["timestamp"]),
            ),
        )
        if event["type"] in ENDED:
            self._db.execute(
                "UPDATE machines SET ended = ? WHERE vm_id = ?",
                (ENDED[event["type"]], vm_id),
            )

    def _drop_old_heartbeats(self, vm_id: str) -> None:
        self._db.execute(
            "DELETE FROM heartbeats WHERE vm_id = ? AND position <= ("
            " SELECT position FROM heartbeats WHERE vm_id = ?"
            " ORDER BY position DESC LIMIT 1 OFFSET ?)",
            (vm_id, vm_id, HEARTBEATS_KEPT),
        )

    def _count(self, vm_id: str, column: str) -> None:
        with self._db:
            self._db.execute(
                f"UPDATE machines SET {column} = {column} + 1 WHERE vm_id = ?",
                (vm_id,),
            )


def _canonical(event: Mapping[str, Any]) -> str:
    """Equal for equal JSON, whatever the order of its keys (in Python 1 == True)."""
    return json.dumps(event, sort_keys=True)
