"""All that a journal holds, taken out of one file and put into another.

Only rows whose checksum is right are carried; what is missing is counted as dropped,
so that the counters add up in the new file too.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from miglet.journal.files import log_of
from miglet.journal.ledger import Counters, Ledger, sound_json
from miglet.journal.storage import Storage, connect
from miglet.journal.tables import FORMAT, TABLES, Row, Value, fetch, is_sound, put, rows

log = logging.getLogger(__name__)

#: With a writable schema SQLite reads what there is of a file that lacks pages.
_TOLERANT = ("writable_schema = ON", "locking_mode = EXCLUSIVE")


@dataclass
class Contents:
    """The sound rows of every table by their key, and the counters if there are."""

    rows: dict[str, dict[Value, Row]] = field(default_factory=dict)
    counters: Counters | None = None
    #: Why there is nothing; None when it was read, or there was no file.
    unreadable: str | None = None

    @property
    def generation(self) -> int:
        """Which of two journals of one machine is the newer."""
        return self.counters.generation if self.counters else 0

    @property
    def event_count(self) -> int:
        """Undelivered events."""
        return len(self.rows.get("pending", {}))


def rescued(path: Path, spare: Path) -> Contents:
    """What can be read of the file at `path`, however damaged it is.

    It is read from a copy in the folder `spare`: SQLite cannot read a log on a
    read-only disk, and the original stays as it was found.
    """
    if not path.is_file():
        return Contents()
    try:
        with tempfile.TemporaryDirectory(dir=spare, prefix="rescue-") as folder:
            return _contents_of_copy(path, Path(folder))
    except (OSError, sqlite3.Error) as error:
        log.warning("nothing of %s can be rescued: %s", path, error)
        return Contents(unreadable=str(error))


def contents_of(db: sqlite3.Connection) -> Contents:
    """The sound rows that can be read; never an error."""
    try:
        if db.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
            return Contents()
    except sqlite3.Error as error:
        log.info("nothing to be rescued: %s", error)
        return Contents()
    found = {table: _sound_rows(db, table) for table in TABLES}
    counters = sound_json(found["facts"].get("counters"), 1)
    return Contents(found, Counters.of_json(counters) if counters else None)


def load(storage: Storage, contents: Contents) -> None:
    """Replace everything in `storage` by `contents`, as the newer generation."""

    def replace(ledger: Ledger) -> None:
        for table in TABLES:
            ledger.db.execute(f"DELETE FROM {table}")
            for row in contents.rows.get(table, {}).values():
                put(ledger.db, table, *row[:-1])
        counters = contents.counters or Counters()
        ledger.counters = counters.copy()
        ledger.counters.generation = max(counters.generation + 1, int(time.time()))
        _reconcile(ledger, storage.marks.highest())

    storage.write(replace)


def audit(storage: Storage) -> int:
    """Set aside every damaged row and make the counters right; the rows' number."""

    def examine(ledger: Ledger) -> int:
        counters = sound_json(fetch(ledger.db, "facts", "counters"), 1)
        ledger.counters = Counters.of_json(counters) if counters else Counters()
        damaged = sum(_purge(ledger, table) for table in TABLES)
        _reconcile(ledger, storage.marks.highest())
        return damaged

    return storage.write(examine)


def _contents_of_copy(path: Path, folder: Path) -> Contents:
    copied = folder / path.name
    shutil.copyfile(path, copied)
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(log_of(path), log_of(copied))
    with contextlib.closing(connect(copied, _TOLERANT)) as db:
        return contents_of(db)


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


def _purge(ledger: Ledger, table: str) -> int:
    bad = [row for row in rows(ledger.db, table) if not is_sound(row)]
    key = TABLES[table][0]
    for row in bad:
        if table == "pending":
            ledger.drop_damaged(row)
        else:
            ledger.db.execute(f"DELETE FROM {table} WHERE {key} = ?", (row[0],))
    return len(bad)


def _reconcile(ledger: Ledger, marked: int) -> None:
    counters, ask = ledger.counters, _asking(ledger.db)
    known = (ask("SELECT MAX(sequence) FROM pending"), marked)
    highest = max(*known, ask("SELECT MAX(sequence) FROM recent"))
    if counters.sequence < highest:
        counters.base += highest - counters.sequence
        counters.sequence = highest
    missing = counters.pending - ask("SELECT COUNT(*) FROM pending")
    if missing > 0:
        counters.dropped["lost"] = counters.dropped.get("lost", 0) + missing
    elif missing < 0:
        counters.base += missing


def _asking(db: sqlite3.Connection) -> Callable[[str], int]:
    return lambda query: db.execute(query).fetchone()[0] or 0
