"""Keeps the journal writable: when its file fails, the contents move to the next.

The candidates are tried in order, memory is the last. A move happens inside the write
that failed, and that write is then made in the new place: nothing committed is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from miglet.errors import JournalUnusable
from miglet.journal.ledger import (
    FORMAT,
    PAGE_BYTES,
    TABLES,
    Counters,
    Ledger,
    Row,
    Value,
    class_of,
    fetch,
    is_sound,
    put,
    rows,
    sound_json,
)
from miglet.journal.storage import (
    JournalNewer,
    Marks,
    Storage,
    connect,
    discard,
    in_memory,
    log_of,
    open_file,
    set_aside,
)

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


log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")


class Finding(NamedTuple):
    """Something that happened to the journal and belongs into an ``Error`` event."""

    #: journal_reset, journal_newer, journal_moved, rows_damaged, other_boot or
    #: events_dropped.
    code: str
    message: str
    counts: Mapping[str, int]


class Chain:
    """The storage in use, and where to go when it fails."""

    def __init__(self, candidates: Sequence[Path]) -> None:
        self.candidates = list(candidates)
        self.findings: list[Finding] = []
        #: Why the journal is not in the first of its places; None while it is.
        self.degraded: str | None = None
        self._position = 0
        self._salvaged: list[Contents] = []
        with contextlib.ExitStack() as undo:
            self.marks = Marks(self.candidates)
            undo.callback(self.marks.close)
            self._miss()
            self.storage = self._first_usable()
            self._adopt_newest()
            undo.pop_all()

    def close(self) -> None:
        """Close the storage in use; its file stays as large as it is."""
        self.storage.close()
        self.marks.close()

    def write(self, change: Callable[[Ledger], Outcome]) -> Outcome:
        """Make `change` in one transaction, wherever that is possible.

        Raises JournalUnusable when even memory fails.
        """
        while True:
            try:
                return self.storage.write(change)
            except sqlite3.ProgrammingError:
                raise
            except sqlite3.DatabaseError as error:
                self._move(error)

    def read(self, query: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """What `query` finds, wherever it can be read."""
        while True:
            try:
                return query(self.storage.db)
            except sqlite3.ProgrammingError:
                raise
            except sqlite3.DatabaseError as error:
                self._move(error)

    def find(self, code: str, message: str, counts: Mapping[str, int]) -> None:
        """Note what is to be told."""
        log.warning("journal: %s", message)
        self.findings.append(Finding(code, message, counts))

    def take_findings(self) -> list[Finding]:
        """What was found since the last call, the drops since then as one of them.

        Drops are told once there is room: the telling would only drop another event.
        """
        counters = self.storage.counters
        drops = Counter(counters.dropped) - Counter(counters.reported)
        roomy = self.read(partial(_has_room_for_report, counters))
        if drops and roomy:
            self.write(_report_drops)
            text = f"{sum(drops.values())} events were dropped (no room, or damaged)"
            self.find("events_dropped", text, dict(drops))
        found, self.findings = self.findings, []
        return found

    def _miss(self) -> None:
        known = self.marks.highest()
        if known and not any(path.exists() for path in self.candidates):
            text = f"the journal of {known} events is gone: what it held is lost"
            self.find("journal_reset", text, {"events_rescued": 0})

    def _first_usable(self) -> Storage:
        for path in self.candidates:
            try:
                return self._opened(path)
            except (OSError, sqlite3.Error) as error:
                self._note_failure(path, error)
                self._position += 1
        return in_memory(self.marks)

    def _opened(self, path: Path) -> Storage:
        try:
            return self._audited(open_file(path, self.marks))
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return self._replaced(path, error)

    def _spare(self) -> Path:
        # The last candidate is the one in memory, where the system has such a place.
        for path in reversed(self.candidates):
            if os.access(path.parent, os.W_OK):
                return path.parent
        return Path(tempfile.gettempdir())

    def _audited(self, storage: Storage) -> Storage:
        try:
            damaged = audit(storage)
        except sqlite3.Error:
            storage.abandon()
            raise
        if damaged:
            text = "rows with a wrong checksum were set aside"
            self.find("rows_damaged", text, {"rows": damaged})
        return storage

    def _replaced(self, path: Path, error: sqlite3.Error) -> Storage:
        newer = isinstance(error, JournalNewer)
        contents = Contents() if newer else rescued(path, self._spare())
        self._salvaged.append(contents)
        aside = set_aside(path, "newer" if newer else "corrupt")
        storage = _fresh(path, contents, self.marks)
        self.find(
            "journal_newer" if newer else "journal_reset",
            f"{path} could not be used ({error}); it is kept as {aside.name}",
            {"events_rescued": contents.event_count},
        )
        return storage

    def _adopt_newest(self) -> None:
        # A fallback that was used later than the file that is in use now knows more.
        others = [path for path in self.candidates if path != self.storage.path]
        found = [self._recovered(path) for path in others]
        best = max(found + self._salvaged, key=_newness, default=Contents())
        if self.degraded or best.generation > self.storage.counters.generation:
            own = contents_of(self.storage.db)
            load(self.storage, max(best, own, key=_newness))
        self._salvaged.clear()
        for path in self.candidates[self._position + 1 :]:
            with contextlib.suppress(OSError):
                discard(path)

    def _recovered(self, path: Path) -> Contents:
        contents = rescued(path, self._spare())
        if contents.unreadable:
            text = (
                f"{path} cannot be read ({contents.unreadable}): what it held is lost"
            )
            self.find("journal_reset", text, {"events_rescued": 0})
        return contents

    def _move(self, error: sqlite3.Error) -> None:
        failed, contents = self.storage, contents_of(self.storage.db)
        contents.counters = failed.counters
        failed.abandon()
        if failed.path is None:
            raise JournalUnusable(f"the journal cannot be kept: {error}") from error
        self._leave(failed.path, error)
        self.storage = self._loaded(contents)

    def _leave(self, path: Path, error: sqlite3.Error) -> None:
        if isinstance(error, sqlite3.OperationalError):
            self._note_failure(path, error)
            self._position += 1
        else:
            with contextlib.suppress(OSError):
                set_aside(path, "corrupt")
        self.find("journal_moved", f"{path} failed: {error}", {})

    def _loaded(self, contents: Contents) -> Storage:
        for path in self.candidates[self._position :]:
            try:
                return _fresh(path, contents, self.marks)
            except (OSError, sqlite3.Error) as error:
                self._note_failure(path, error)
                self._position += 1
        storage = in_memory(self.marks)
        load(storage, contents)
        return storage

    def _note_failure(self, path: Path, error: Exception) -> None:
        reason = f"{path}: {error}"
        log.error("the journal cannot be kept in %s", reason)
        self.degraded = f"{self.degraded}; {reason}" if self.degraded else reason


def _has_room_for_report(counters: Counters, db: sqlite3.Connection) -> bool:
    rank = class_of("Error")
    return Ledger(db, counters).has_room(PAGE_BYTES, rank, counters.pending + 1)


def _report_drops(ledger: Ledger) -> None:
    ledger.counters.reported = dict(ledger.counters.dropped)


def _newness(contents: Contents) -> tuple[int, bool]:
    return contents.generation, contents.counters is not None


def _fresh(path: Path, contents: Contents, marks: Marks) -> Storage:
    if path.exists():
        discard(path)
    storage = open_file(path, marks)
    try:
        load(storage, contents)
    except sqlite3.Error:
        storage.abandon()
        raise
    return storage
