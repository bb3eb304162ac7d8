"""What one transaction of the journal does to its rows and counters.

All of it runs between BEGIN and COMMIT on the owner's connection. The counters always
add up: every sequence number given out is pending, delivered, rejected or dropped.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

#: Of one event, as JSON in ASCII; with its envelope it must fit a message of 64 KiB.
EVENT_BYTES = 60 * 1024

#: How deep a value may be nested before it is replaced.
_DEPTH = 16

Value = int | str | bytes | None
Row = tuple[Any, ...]

#: Kept in the file as ``user_version``; a file with another one is not touched.
FORMAT = 1

#: Every table with its columns; the first one is the key, ``crc`` follows the last.
TABLES = {
    "pending": ("sequence", "class", "body"),
    "recent": ("sequence", "type", "timestamp", "job_id", "status"),
    "rejected": ("sequence", "status", "answer", "body"),
    "commands": ("id", "place", "open", "body"),
    "facts": ("name", "body"),
}

_SCHEMA = (
    "CREATE TABLE pending (sequence INTEGER PRIMARY KEY, class INTEGER, body BLOB,"
    " crc INTEGER)",
    "CREATE INDEX pending_by_class ON pending (class, sequence)",
    "CREATE TABLE recent (sequence INTEGER PRIMARY KEY, type TEXT, timestamp TEXT,"
    " job_id TEXT, status TEXT, crc INTEGER)",
    "CREATE TABLE rejected (sequence INTEGER PRIMARY KEY, status INTEGER, answer TEXT,"
    " body BLOB, crc INTEGER)",
    "CREATE TABLE commands (id TEXT PRIMARY KEY, place INTEGER, open INTEGER,"
    " body BLOB, crc INTEGER) WITHOUT ROWID",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, body BLOB, crc INTEGER) WITHOUT ROWID",
)

PAGE_BYTES = 4096

#: The journal's bound, and how much of it only job results may use.
FILE_BYTES = 8 * 1024 * 1024
RESERVE_BYTES = FILE_BYTES // 10

#: Rows of each table; together they stay below 20,000.
PENDING_ROWS = 18_000
RECENT_ROWS = 500
REJECTED_ROWS = 200
COMMAND_ROWS = 1_000

#: What is kept of a rejected event, of a rejecting answer, of a command that is done.
REJECTED_BYTES = 4 * 1024
ANSWER_BYTES = 2 * 1024
COMMAND_BYTES = 2 * 1024

#: What goes first when there is no room, from the first to the last.
CLASSES = ("chatter", "report", "milestone", "result")

#: Results are never dropped.
RESULT = CLASSES.index("result")

#: The class of each type of event; one that is not named is a report.
CLASS_OF = {
    "JobHeartbeat": "chatter",
    "Error": "report",
    "RunnerCrashed": "report",
    "RunnerRegistered": "report",
    "VMStarted": "milestone",
    "JobStarted": "milestone",
    "TerminationNotice": "milestone",
    "VMShuttingDown": "milestone",
    "VMStopped": "milestone",
    "CommandCompleted": "milestone",
    "JobCompleted": "result",
}


def encode(value: Any) -> bytes:
    """The value as JSON, ASCII only; ValueError for NaN and infinities."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def clip_event(event: dict[str, Any], limit: int = EVENT_BYTES) -> dict[str, Any]:
    """The event itself if it fits `limit` bytes, else one with clipped values.

    A clipped one says so with ``"truncated": true`` in its ``metadata``.
    """
    if len(encode(event)) <= limit:
        return event
    for allowed in (4096, 1024, 256, 64, 16):
        clipped = _mark_truncated(_clip(event, allowed, _DEPTH))
        if len(encode(clipped)) <= limit:
            return clipped
    return _mark_truncated({**clipped, "data": {}, "metadata": {}})


def _mark_truncated(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "metadata": {**(event.get("metadata") or {}), "truncated": True}}


def _clip(value: Any, allowed: int, depth: int) -> Any:
    if isinstance(value, str):
        return value[:allowed]
    if isinstance(value, (dict, list, tuple)) and depth == 0:
        return None
    if isinstance(value, dict):
        return {key: _clip(item, allowed, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clip(item, allowed, depth - 1) for item in value[: allowed // 8]]
    return value


def create_tables(db: sqlite3.Connection) -> None:
    """Make an empty file a journal of this format."""
    for statement in _SCHEMA:
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {FORMAT}")


def has_tables(db: sqlite3.Connection) -> bool:
    """Whether the file has exactly the tables of this format."""
    found = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {row[0] for row in found} == set(_SCHEMA)


def checksum(columns: Row) -> int:
    """The CRC-32 over all columns of a row, with their types and lengths."""
    crc = 0
    for column in columns:
        content = column if isinstance(column, bytes) else str(column).encode()
        mark = f"{type(column).__name__}:{len(content)}:".encode()
        crc = zlib.crc32(content, zlib.crc32(mark, crc))
    return crc


def is_sound(row: Row) -> bool:
    """Whether the row is still what was written."""
    return row[-1] == checksum(row[:-1])


def put(db: sqlite3.Connection, table: str, *columns: Value) -> None:
    """Write one row, over the one with the same key."""
    row = (*columns, checksum(columns))
    placeholders = ", ".join("?" * len(row))
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({placeholders})", row)


def fetch(db: sqlite3.Connection, table: str, key: Value) -> Row | None:
    """The row with this key; None when there is none that is sound."""
    name = TABLES[table][0]
    row = db.execute(f"SELECT * FROM {table} WHERE {name} = ?", (key,)).fetchone()
    return row if row is not None and is_sound(row) else None


def body_of(row: Row | None) -> Any:
    """The JSON in the last column of a sound row; None when there is no row."""
    return json.loads(row[-2]) if row else None


def remove(db: sqlite3.Connection, table: str, key: Value) -> int:
    """Delete the row with this key; how many there were (0 or 1)."""
    name = TABLES[table][0]
    return db.execute(f"DELETE FROM {table} WHERE {name} = ?", (key,)).rowcount


def rows(db: sqlite3.Connection, table: str, order: str = "ASC") -> Iterator[Row]:
    """All rows of a table by key, the damaged ones too."""
    name = TABLES[table][0]
    yield from db.execute(f"SELECT * FROM {table} ORDER BY {name} {order}")


def clip_text(text: object, limit: int = 256) -> str:
    """Text from outside as a column can hold it: valid UTF-8 of bounded length."""
    return str(text).encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


@dataclass
class Counters:
    """What the journal knows about events that it no longer holds."""

    #: The last sequence number given out, and the one that counting began after.
    sequence: int = 0
    base: int = 0
    #: How often the contents were carried to another file; the higher is the newer.
    generation: int = 0
    delivered: int = 0
    rejected: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    #: The part of `dropped` that has been reported to the controller.
    reported: dict[str, int] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Events that wait for delivery."""
        gone = self.delivered + self.rejected + sum(self.dropped.values())
        return self.sequence - self.base - gone

    @classmethod
    def of_row(cls, row: Row | None) -> Counters:
        """The counters in their row; new ones when there is none that is sound."""
        return cls(**(body_of(row) or {}))


@dataclass
class Snapshot:
    """The sound rows of every table by their key, and the counters beside them."""

    rows: dict[str, dict[Value, Row]] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)

    @classmethod
    def read(cls, db: sqlite3.Connection) -> Snapshot:
        """All that can be read; never an error."""
        try:
            if db.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                return cls()
        except sqlite3.Error as error:
            log.info("no row of the journal can be read: %s", error)
            return cls()
        found = {table: _sound_rows(db, table) for table in TABLES}
        return cls(found, Counters.of_row(found["facts"].get("counters")))

    def age(self) -> tuple[int, int]:
        """What orders the journals of one machine, the newest last.

        Two that were never carried over are of one generation: the fuller is the newer.
        """
        return self.counters.generation, sum(map(len, self.rows.values()))


def _sound_rows(db: sqlite3.Connection, table: str) -> dict[Value, Row]:
    # From both ends, since reading stops at the first damaged page.
    found: dict[Value, Row] = {}
    for order in ("ASC", "DESC"):
        try:
            found.update((row[0], row) for row in rows(db, table, order))
            break
        except sqlite3.Error as error:
            log.info("rows of %s cannot be read: %s", table, error)
    return {key: row for key, row in found.items() if is_sound(row)}


def class_of(event_type: object) -> int:
    """How long an event of this type is held on to; the lowest goes first."""
    return CLASSES.index(CLASS_OF.get(str(event_type), "report"))


class Ledger:
    """The open transaction: rows on `db`, and counters that hold once it commits."""

    def __init__(self, db: sqlite3.Connection, counters: Counters) -> None:
        self.db = db
        self.counters = counters

    def save_counters(self) -> None:
        """Write the counters beside what they count."""
        put(self.db, "facts", "counters", encode(dataclasses.asdict(self.counters)))

    def save_state(self, state: dict[str, Any], boot_id: str) -> None:
        """Write the state a restart needs, and the boot it belongs to."""
        put(self.db, "facts", "state", encode({"boot_id": boot_id, "state": state}))

    def discard_state(self) -> None:
        """Forget the state."""
        remove(self.db, "facts", "state")

    def save_commands(self, commands: Mapping[str, dict[str, Any]]) -> None:
        """Write commands by id; one with an ``outcome`` is done, others are open."""
        for name, command in commands.items():
            done = command.get("outcome") is not None
            kept = clip_event(command, COMMAND_BYTES) if done else command
            key = clip_text(name)
            old = fetch(self.db, "commands", key)
            place = old[1] if old else _next_place(self.db)
            put(self.db, "commands", key, place, 0 if done else 1, encode(kept))
        if commands:
            self._trim("commands", "id", "open = 0", "place", COMMAND_ROWS)

    def add(self, event: dict[str, Any]) -> dict[str, Any]:
        """Give the event its sequence number and keep it; what was kept.

        Where there is no room, the oldest of the lowest class goes, which may be
        this very event; a job's result is always kept.
        """
        self.counters.sequence += 1
        numbered = clip_event({**event, "sequence": self.counters.sequence})
        body, rank = encode(numbered), class_of(event.get("type"))
        put(self.db, "recent", *_summary(numbered))
        if self._make_room(len(body), rank):
            put(self.db, "pending", self.counters.sequence, rank, body)
        else:
            self._count_drop(self.counters.sequence, CLASSES[rank])
        oldest = self.counters.sequence - RECENT_ROWS
        self.db.execute("DELETE FROM recent WHERE sequence <= ?", (oldest,))
        return numbered

    def deliver(self, sequence: int) -> None:
        """Delete an event that has arrived; nothing if it is not pending."""
        if self._was_given(sequence) and remove(self.db, "pending", sequence):
            self.counters.delivered += 1
            self._mark(sequence, "delivered")

    def reject(self, sequence: int, status: int | None, answer: str) -> None:
        """Set a pending event aside with the answer that refused it."""
        row = fetch(self.db, "pending", sequence) if self._was_given(sequence) else None
        if row is None:
            return
        body = encode(clip_event(body_of(row), REJECTED_BYTES))
        self._set_aside(sequence, status, clip_text(answer, ANSWER_BYTES), body)
        self.counters.rejected += 1
        self._mark(sequence, "rejected")

    def drop_damaged(self, row: Row) -> None:
        """Set a pending row aside whose checksum is wrong."""
        body = row[2] if isinstance(row[2], bytes) else str(row[2]).encode()
        self._set_aside(row[0], None, "checksum", body[:REJECTED_BYTES])
        self._count_drop(row[0], "damaged")

    def _set_aside(
        self, sequence: Any, status: int | None, reason: str, body: bytes
    ) -> None:
        put(self.db, "rejected", sequence, status, reason, body)
        remove(self.db, "pending", sequence)
        self._trim("rejected", "sequence", "1", "sequence", REJECTED_ROWS)

    def _make_room(self, size: int, rank: int) -> bool:
        while not self._has_room(size, rank, self.counters.pending):
            lowest = self.db.execute(
                "SELECT sequence, class FROM pending WHERE class <= ? AND class < ?"
                " ORDER BY class, sequence LIMIT 1",
                (rank, RESULT),
            ).fetchone()
            if lowest is None:
                return rank == RESULT
            remove(self.db, "pending", lowest[0])
            self._count_drop(lowest[0], CLASSES[lowest[1]])
        return True

    def _has_room(self, size: int, rank: int, waiting: int) -> bool:
        """Whether an event fits that makes `waiting` of them pending."""
        pages = self.db.execute("PRAGMA page_count").fetchone()[0]
        free = self.db.execute("PRAGMA freelist_count").fetchone()[0]
        limit = FILE_BYTES - (0 if rank == RESULT else RESERVE_BYTES)
        fits = (pages - free + 4) * PAGE_BYTES + size <= limit
        return fits and waiting <= PENDING_ROWS

    def has_room_for_report(self) -> bool:
        """Whether an ``Error`` that reports the drops would drop nothing itself."""
        return self._has_room(PAGE_BYTES, class_of("Error"), self.counters.pending + 1)

    def mark_drops_reported(self) -> None:
        """Note that all drops until now have been reported."""
        self.counters.reported = dict(self.counters.dropped)

    def load(self, contents: Snapshot, marked: int) -> None:
        """Replace everything by `contents`, as the newer generation."""
        for table in TABLES:
            self.db.execute(f"DELETE FROM {table}")
            for row in contents.rows.get(table, {}).values():
                put(self.db, table, *row[:-1])
        self.counters = copy.deepcopy(contents.counters)
        self.counters.generation = max(self.counters.generation + 1, int(time.time()))
        self._reconcile(marked)

    def audit(self, marked: int) -> int:
        """Remove every damaged row and make the counters right; how many there were."""
        bad = [
            (table, row)
            for table in TABLES
            for row in rows(self.db, table)
            if not is_sound(row)
        ]
        for table, row in bad:
            if table == "pending":
                self.drop_damaged(row)
            else:
                remove(self.db, table, row[0])
        self._reconcile(marked)
        return len(bad)

    def _reconcile(self, marked: int) -> None:
        """Make the counters add up with the rows that there are, and with `marked`.

        That is the last sequence number that is known from elsewhere.
        """
        counters = self.counters
        (highest,) = self.db.execute(
            "SELECT MAX(?, COALESCE(MAX(sequence), 0)) FROM"
            " (SELECT sequence FROM pending UNION ALL SELECT sequence FROM recent)",
            (marked,),
        ).fetchone()
        if counters.sequence < highest:
            counters.base += highest - counters.sequence
            counters.sequence = highest
        (present,) = self.db.execute("SELECT COUNT(*) FROM pending").fetchone()
        missing = counters.pending - present
        if missing > 0:
            counters.dropped["lost"] = counters.dropped.get("lost", 0) + missing
        else:
            counters.base += missing

    def _count_drop(self, sequence: Any, name: str) -> None:
        self.counters.dropped[name] = self.counters.dropped.get(name, 0) + 1
        self._mark(sequence, "dropped")

    def _mark(self, sequence: Any, status: str) -> None:
        row = fetch(self.db, "recent", sequence)
        if row is not None:
            put(self.db, "recent", *row[:4], status)

    def _was_given(self, sequence: int) -> bool:
        return 0 < sequence <= self.counters.sequence

    def _trim(self, table: str, key: str, which: str, order: str, limit: int) -> None:
        self.db.execute(
            f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table}"
            f" WHERE {which} ORDER BY {order} DESC LIMIT -1 OFFSET {limit})"
        )


def _next_place(db: sqlite3.Connection) -> int:
    query = "SELECT COALESCE(MAX(place), 0) + 1 FROM commands"
    return db.execute(query).fetchone()[0]


def _summary(event: dict[str, Any]) -> tuple[int, str, str, str | None, str]:
    job = event.get("job_id")
    return (
        event["sequence"],
        clip_text(event.get("type")),
        clip_text(event.get("timestamp")),
        None if job is None else clip_text(job),
        "pending",
    )
