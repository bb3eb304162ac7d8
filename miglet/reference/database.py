"""The controller's SQLite file: its tables and how it is opened.

It is written from the event loop itself, without a thread: a commit that survives a
power cut (WAL, FULL) took 0.12 ms (p99 0.4 ms) on an SSD, less than a hop to a thread
and back under load, and the order of arrival stays the order of storage.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

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
