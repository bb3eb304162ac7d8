"""One file that holds the journal: made, opened, checked, set aside.

The file and its write-ahead log are grown before first use, so that later neither
events nor acknowledgements need room on the disk. The locks are exclusive: the file
belongs to one process, and no shared memory file is needed beside it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from miglet.errors import UNAVAILABLE, JournalUnusable
from miglet.journal.files import (
    LOG_BYTES,
    discard,
    grow_log,
    log_of,
    put_back,
    second_name,
    sync,
)
from miglet.journal.ledger import FILE_BYTES, PAGE_BYTES, Counters, Ledger
from miglet.journal.marks import Marks
from miglet.journal.tables import FORMAT, create_tables, has_tables

Outcome = TypeVar("Outcome")

#: The log is emptied into the file after so many pages, so it stays below its size.
CHECKPOINT_PAGES = 128

#: Results may pass the journal's own bound, but not without end.
HARD_PAGES = 2 * FILE_BYTES // PAGE_BYTES

_SETTINGS = (
    "locking_mode = EXCLUSIVE",
    "temp_store = MEMORY",
    "cache_size = -256",
    f"max_page_count = {HARD_PAGES}",
    f"journal_size_limit = {LOG_BYTES}",
    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    "synchronous = FULL",
)


class JournalInUse(JournalUnusable):
    """Another process holds the journal: another MIGlet runs on this machine."""

    exit_status = UNAVAILABLE
    hint = "end the other miglet first, or give this one another paths.state"


class JournalDamaged(sqlite3.DatabaseError):
    """The file is no journal, or no longer one."""


class JournalNewer(JournalDamaged):
    """The file was written by a version whose format this one does not know."""


class Storage:
    """An open journal file (``path`` is None in memory) and its counters."""

    def __init__(self, path: Path | None, db: sqlite3.Connection, marks: Marks) -> None:
        self.path = path
        self.db = db
        self.marks = marks
        self.counters = Counters()

    def write(self, change: Callable[[Ledger], Outcome]) -> Outcome:
        """Make `change` in one transaction: all of it, or sqlite3.Error and nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            ledger = Ledger(self.db, self.counters.copy())
            outcome = change(ledger)
            ledger.save_counters()
            self.db.execute("COMMIT")
        finally:
            self._roll_back()
        self.counters = ledger.counters
        self.marks.note(self.counters.sequence)
        return outcome

    def checkpoint(self) -> None:
        """Empty the log into the file; a failure costs nothing but the time."""
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close the file and leave its log grown, for a start on a full disk."""
        self.checkpoint()
        if self.path is None:
            return self.abandon()
        kept = second_name(log_of(self.path))
        self.abandon()
        return put_back(kept, log_of(self.path))

    def abandon(self) -> None:
        """Close the connection as it is."""
        with contextlib.suppress(sqlite3.Error):
            self.db.close()

    def _roll_back(self) -> None:
        if self.db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")


def open_file(path: Path, marks: Marks) -> Storage:
    """Open the journal at `path`, made first where there is none.

    Raises OSError or sqlite3.OperationalError where it cannot be written,
    JournalInUse when it belongs to another process, JournalDamaged when it is none.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _create(path)
    grow_log(path)
    return opened(path, marks)


def opened(path: Path, marks: Marks) -> Storage:
    """The existing journal at `path`, checked and proven to be writable."""
    try:
        return Storage(path, _owned(path), marks)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise JournalInUse(f"{path} is in use by another process") from error


def in_memory(marks: Marks) -> Storage:
    """A journal that ends with this process; the last resort."""
    db = connect(None)
    create_tables(db)
    return Storage(None, db, marks)


def _create(path: Path) -> None:
    # Under another name until it is whole: a crash leaves nothing that looks usable.
    unfinished = path.with_name(path.name + ".new")
    discard(unfinished)
    try:
        _write_empty(unfinished)
        # A log left by an earlier file would be replayed into this one.
        log_of(path).unlink(missing_ok=True)
        os.rename(unfinished, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            discard(unfinished)


def _write_empty(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        _fill(db)
    sync(path)


def _fill(db: sqlite3.Connection) -> None:
    for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -256"):
        db.execute(f"PRAGMA {setting}")
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    create_tables(db)
    db.execute("CREATE TABLE room (filler BLOB)")
    db.execute("BEGIN")
    pages = FILE_BYTES // PAGE_BYTES - 24
    db.execute("INSERT INTO room VALUES (zeroblob(?))", (pages * (PAGE_BYTES - 4),))
    db.execute("COMMIT")
    db.execute("DROP TABLE room")


def connect(
    path: Path | None, settings: Sequence[str] = _SETTINGS
) -> sqlite3.Connection:
    """A connection with the settings that every journal has, or with others."""
    with contextlib.ExitStack() as undo:
        db = sqlite3.connect(path or ":memory:", timeout=1.0, isolation_level=None)
        undo.callback(db.close)
        # A flipped bit must lead to a wrong checksum, not to an error of the decoder.
        db.text_factory = lambda content: content.decode("utf-8", "replace")
        for setting in settings:
            db.execute(f"PRAGMA {setting}").fetchall()
        undo.pop_all()
        return db


def _owned(path: Path) -> sqlite3.Connection:
    with contextlib.ExitStack() as undo:
        db = undo.enter_context(contextlib.closing(connect(path)))
        # This takes the lock, and the connection keeps it as long as it lives.
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise sqlite3.OperationalError(f"no write-ahead log here, but {mode}")
        _check(db)
        undo.pop_all()
        return db


def _check(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise JournalNewer(f"format {version}, newer than {FORMAT}")
    if version != FORMAT or not has_tables(db):
        raise JournalDamaged("the file holds no journal")
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise JournalDamaged(f"the file is damaged: {verdict}")
