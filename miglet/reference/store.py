"""What machines report goes into the database here, and nowhere else.

An event is on the disk before it is acknowledged; events are kept for good, of
heartbeats the last thousand of each machine.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from miglet.formats import parse_rfc3339, rfc3339

#: How long another process may hold the file before it counts as in use, in seconds.
LOCK_SECONDS = 1.0

TABLES = """
CREATE TABLE IF NOT EXISTS machines (
    vm_id TEXT PRIMARY KEY, pool_id TEXT, org_id TEXT, state TEXT,
    first_seen_at REAL NOT NULL, ended INTEGER NOT NULL DEFAULT 0,
    heartbeats INTEGER NOT NULL DEFAULT 0, duplicates INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    last_heartbeat TEXT, last_heartbeat_at REAL, reported_at REAL
);
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT, vm_id TEXT NOT NULL, id TEXT NOT NULL,
    sequence INTEGER, type TEXT NOT NULL, body TEXT NOT NULL,
    received_at REAL NOT NULL, received_mono REAL NOT NULL, UNIQUE (vm_id, id)
);
CREATE INDEX IF NOT EXISTS events_in_order ON events (vm_id, position);
CREATE INDEX IF NOT EXISTS events_in_sequence ON events (vm_id, sequence);
CREATE TABLE IF NOT EXISTS heartbeats (
    position INTEGER PRIMARY KEY AUTOINCREMENT, vm_id TEXT NOT NULL,
    body TEXT NOT NULL, received_at REAL NOT NULL, received_mono REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS heartbeats_in_order ON heartbeats (vm_id, position);
CREATE TABLE IF NOT EXISTS commands (
    id TEXT PRIMARY KEY, vm_id TEXT NOT NULL, type TEXT NOT NULL,
    parameters TEXT NOT NULL, created_at REAL NOT NULL, expires_at TEXT,
    times_handed_out INTEGER NOT NULL DEFAULT 0, handed_out_at REAL,
    completed_at REAL, outcome TEXT, reason TEXT
);
CREATE INDEX IF NOT EXISTS commands_of_machine ON commands (vm_id, completed_at);
"""


class Arrival(NamedTuple):
    """When a request was here whole: `at` wall time, `now` monotonic, in seconds."""

    at: float
    now: float


def arrival() -> Arrival:
    """This moment on both clocks."""
    return Arrival(time.time(), time.monotonic())


def open_database(path: Path) -> sqlite3.Connection:
    """The database at `path`, made if it is not there, for this process alone.

    Raises sqlite3.Error if the file is in use, no database, or cannot be written.
    """
    db = sqlite3.connect(path, timeout=LOCK_SECONDS)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(TABLES)
    return db


def rfc3339_or_null(at: float | None) -> str | None:
    """Wall-clock seconds as RFC 3339; None stays None."""
    return None if at is None else rfc3339(at)


def wall(timestamp: str) -> float:
    """RFC 3339 text, already checked against the schema, as wall-clock seconds.

    A date that does not exist (February 30) counts as the beginning of time.
    """
    return parse_rfc3339(timestamp) or 0.0


#: How many heartbeats of each machine are kept.
HEARTBEATS_KEPT = 1000

#: Whether the machine has ended, after these events.
ENDED = {"VMStarted": False, "VMStopped": True}


class StoreResult(Enum):
    """The result of storing an event: new, stored before, or its id is another's."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Store:
    """Writes machines, events and heartbeats; `queries` reads them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def meet(self, vm_id: str, at: float) -> None:
        """Remember a machine from its first call on."""
        with self._db:
            self._db.execute(
                "INSERT OR IGNORE INTO machines (vm_id, first_seen_at) VALUES (?, ?)",
                (vm_id, at),
            )

    def store_event(
        self, vm_id: str, event: Mapping[str, Any], came: Arrival
    ) -> StoreResult:
        """Store an event once; on return it is on the disk."""
        stored = self._db.execute(
            "SELECT body FROM events WHERE vm_id = ? AND id = ?", (vm_id, event["id"])
        ).fetchone()
        if stored is None:
            with self._db:
                self._insert_event(vm_id, event, came)
                self._apply_event(vm_id, event)
            return StoreResult.NEW
        if _canonical(json.loads(stored["body"])) != _canonical(event):
            return StoreResult.CONFLICT
        self._count(vm_id, "duplicates")
        return StoreResult.DUPLICATE

    def store_heartbeat(
        self, vm_id: str, heartbeat: Mapping[str, Any], came: Arrival
    ) -> None:
        """Store a heartbeat and drop the one that is a thousand older."""
        body = json.dumps(heartbeat)
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
                    wall(heartbeat["timestamp"]),
                    heartbeat["miglet_state"],
                    heartbeat["pool_id"],
                    heartbeat["org_id"],
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

    def _apply_event(self, vm_id: str, event: Mapping[str, Any]) -> None:
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


#: How long a machine has to complete a command before it is given it again. The
#: agent executes an id once, so a repetition costs one poll and no more.
LEASE_SECONDS = 5.0

#: Commands in one answer: with 64 KiB each, well below the 1 MiB that agents read.
MAX_AT_ONCE = 8

OPEN = "SELECT * FROM commands WHERE vm_id = ? AND completed_at IS NULL ORDER BY rowid"


class CommandQueue:
    """Commands by machine, in the order in which they were requested."""

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
        for row in rows[:MAX_AT_ONCE]:
            self._leased_until[row["id"]] = arrival.now + self._lease_seconds
            self._mark_handed_out(row["id"], arrival.at)
        return [_wire_form(row) for row in rows[:MAX_AT_ONCE]]

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

    def _mark_handed_out(self, command_id: str, at: float) -> None:
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


class Queries:
    """Reads what `Store` wrote."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def knows(self, vm_id: str) -> bool:
        """Whether the machine has ever called."""
        return bool(self._machine(vm_id))

    def has_ended(self, vm_id: str) -> bool:
        """Whether the machine sent VMStopped and has not started since."""
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
        """The stored heartbeats, oldest first."""
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
