"""The journal's tables, and the checksum that each of their rows carries.

A row is its columns and, last, a CRC over all of them: SQLite's own checks miss most
flipped bits in a row, so no row is believed whose checksum is not right.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator

Value = int | str | bytes | None
Row = tuple[Value, ...]

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
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)


def fetch(db: sqlite3.Connection, table: str, key: Value) -> Row | None:
    """The row with this key; None when there is none that is sound."""
    name = TABLES[table][0]
    row = db.execute(f"SELECT * FROM {table} WHERE {name} = ?", (key,)).fetchone()
    return row if row is not None and is_sound(row) else None


def remove(db: sqlite3.Connection, table: str, key: Value) -> int:
    """Delete the row with this key; how many there were (0 or 1)."""
    name = TABLES[table][0]
    return db.execute(f"DELETE FROM {table} WHERE {name} = ?", (key,)).rowcount


def rows(db: sqlite3.Connection, table: str, order: str = "ASC") -> Iterator[Row]:
    """All rows of a table by key, the damaged ones too."""
    name = TABLES[table][0]
    yield from db.execute(f"SELECT * FROM {table} ORDER BY {name} {order}")


def plain(text: object, limit: int = 256) -> str:
    """Text from outside as a column can hold it: valid UTF-8 of bounded length."""
    return str(text).encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
