"""Keeps the journal writable: when its file fails, it fails over to the next.

The candidates are tried in order, memory is the last. A failover happens inside the
write that failed, which is then repeated in the new place: nothing committed is lost.
Only rows whose checksum is right are carried over; what is missing is counted as
dropped, so that the counters add up in the new file too.
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
    SequenceFiles,
    Storage,
    connect,
    discard,
    in_memory,
    log_of,
    open_file,
    quarantine,
)

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")

#: With a writable schema SQLite reads what there is of a file that lacks pages.
_TOLERANT = ("writable_schema = ON", "locking_mode = EXCLUSIVE")


class JournalFinding(NamedTuple):
    """Something that happened to the journal and becomes an ``Error`` event."""

    #: journal_reset, journal_newer, journal_moved, rows_damaged, other_boot or
    #: events_dropped.
    code: str
    message: str
    counts: Mapping[str, int]


class FailoverStorage:
    """The storage in use, and the candidates to which it fails over."""

    def __init__(self, candidates: Sequence[Path]) -> None:
        self.candidates = list(candidates)
        self.findings: list[JournalFinding] = []
        #: Why the journal is not in the first of its places; None while it is.
        self.degraded: str | None = None
        self._position = 0
        self._recovered: list[Snapshot] = []
        with contextlib.ExitStack() as undo:
            self.sequence_files = SequenceFiles(self.candidates)
            undo.callback(self.sequence_files.close)
            self._report_missing_journal()
            self.storage = self._open_first_usable()
            self._adopt_newest()
            undo.pop_all()

    def close(self) -> None:
        """Close the storage in use; its file stays as large as it is."""
        self.storage.close()
        self.sequence_files.close()

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
                self._fail_over(error)

    def read(self, query: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """What `query` finds, wherever it can be read."""
        while True:
            try:
                return query(self.storage.db)
            except sqlite3.ProgrammingError:
                raise
            except sqlite3.DatabaseError as error:
                self._fail_over(error)

    def report(self, code: str, message: str, counts: Mapping[str, int]) -> None:
        """Log a finding and keep it for `take_findings`."""
        log.warning("journal: %s", message)
        self.findings.append(JournalFinding(code, message, counts))

    def take_findings(self) -> list[JournalFinding]:
        """The findings since the last call, the drops since then as one of them.

        Drops are reported once there is room: the report would only drop another event.
        """
        counters = self.storage.counters
        drops = Counter(counters.dropped) - Counter(counters.reported)
        has_room = self.read(partial(_has_room_for_report, counters))
        if drops and has_room:
            self.write(_report_drops)
            text = f"{sum(drops.values())} events were dropped (no room, or damaged)"
            self.report("events_dropped", text, dict(drops))
        found, self.findings = self.findings, []
        return found

    def _report_missing_journal(self) -> None:
        known = self.sequence_files.highest()
        if known and not any(path.exists() for path in self.candidates):
            text = f"the journal of {known} events is gone: what it held is lost"
            self.report("journal_reset", text, {"events_rescued": 0})

    def _open_first_usable(self) -> Storage:
        for path in self.candidates:
            try:
                return self._open_or_replace(path)
            except (OSError, sqlite3.Error) as error:
                self._note_failure(path, error)
                self._position += 1
        return in_memory(self.sequence_files)

    def _open_or_replace(self, path: Path) -> Storage:
        try:
            return self._audit(open_file(path, self.sequence_files))
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return self._replace(path, error)

    def _scratch_folder(self) -> Path:
        # The last candidate is the one in memory, where the system has such a place.
        for path in reversed(self.candidates):
            if os.access(path.parent, os.W_OK):
                return path.parent
        return Path(tempfile.gettempdir())

    def _audit(self, storage: Storage) -> Storage:
        try:
            damaged = audit(storage)
        except sqlite3.Error:
            storage.abandon()
            raise
        if damaged:
            text = "rows with a wrong checksum were set aside"
            self.report("rows_damaged", text, {"rows": damaged})
        return storage

    def _replace(self, path: Path, error: sqlite3.Error) -> Storage:
        newer = isinstance(error, JournalNewer)
        contents = Snapshot() if newer else recover(path, self._scratch_folder())
        self._recovered.append(contents)
        aside = quarantine(path, "newer" if newer else "corrupt")
        storage = create_with(path, contents, self.sequence_files)
        self.report(
            "journal_newer" if newer else "journal_reset",
            f"{path} could not be used ({error}); it is kept as {aside.name}",
            {"events_rescued": len(contents.rows.get("pending", {}))},
        )
        return storage

    def _adopt_newest(self) -> None:
        # A fallback that was used later than the file that is in use now knows more.
        others = [path for path in self.candidates if path != self.storage.path]
        found = [self._recover(path) for path in others]
        best = max(found + self._recovered, key=_age_key, default=Snapshot())
        if self.degraded or best.generation > self.storage.counters.generation:
            own = read_snapshot(self.storage.db)
            load(self.storage, max(best, own, key=_age_key))
        self._recovered.clear()
        for path in self.candidates[self._position + 1 :]:
            with contextlib.suppress(OSError):
                discard(path)

    def _recover(self, path: Path) -> Snapshot:
        contents = recover(path, self._scratch_folder())
        if contents.unreadable:
            text = (
                f"{path} cannot be read ({contents.unreadable}): what it held is lost"
            )
            self.report("journal_reset", text, {"events_rescued": 0})
        return contents

    def _fail_over(self, error: sqlite3.Error) -> None:
        failed, contents = self.storage, read_snapshot(self.storage.db)
        contents.counters = failed.counters
        failed.abandon()
        if failed.path is None:
            raise JournalUnusable(f"the journal cannot be kept: {error}") from error
        self._retire(failed.path, error)
        self.storage = self._load_into_next(contents)

    def _retire(self, path: Path, error: sqlite3.Error) -> None:
        if isinstance(error, sqlite3.OperationalError):
            self._note_failure(path, error)
            self._position += 1
        else:
            with contextlib.suppress(OSError):
                quarantine(path, "corrupt")
        self.report("journal_moved", f"{path} failed: {error}", {})

    def _load_into_next(self, contents: Snapshot) -> Storage:
        for path in self.candidates[self._position :]:
            try:
                return create_with(path, contents, self.sequence_files)
            except (OSError, sqlite3.Error) as error:
                self._note_failure(path, error)
                self._position += 1
        storage = in_memory(self.sequence_files)
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


def create_with(
    path: Path, contents: Snapshot, sequence_files: SequenceFiles
) -> Storage:
    """A new file at `path` that holds `contents`; OSError or sqlite3.Error if not."""
    if path.exists():
        discard(path)
    storage = open_file(path, sequence_files)
    try:
        load(storage, contents)
    except sqlite3.Error:
        storage.abandon()
        raise
    return storage


def load(storage: Storage, contents: Snapshot) -> None:
    """Replace everything in `storage` by `contents`, as the newer generation."""

    def replace(ledger: Ledger) -> None:
        for table in TABLES:
            ledger.db.execute(f"DELETE FROM {table}")
            for row in contents.rows.get(table, {}).values():
                put(ledger.db, table, *row[:-1])
        counters = contents.counters or Counters()
        ledger.counters = counters.copy()
        ledger.counters.generation = max(counters.generation + 1, int(time.time()))
        _reconcile(ledger, storage.sequence_files.highest())

    storage.write(replace)


def audit(storage: Storage) -> int:
    """Set aside every damaged row and make the counters right; the rows' number."""

    def examine(ledger: Ledger) -> int:
        counters = sound_json(fetch(ledger.db, "facts", "counters"), 1)
        ledger.counters = Counters.of_json(counters) if counters else Counters()
        damaged = sum(_purge(ledger, table) for table in TABLES)
        _reconcile(ledger, storage.sequence_files.highest())
        return damaged

    return storage.write(examine)


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
    """Make the counters add up with the rows that there are, and `marked`."""
    counters = ledger.counters
    (highest,) = ledger.db.execute(
        "SELECT MAX(COALESCE((SELECT MAX(sequence) FROM pending), 0),"
        " COALESCE((SELECT MAX(sequence) FROM recent), 0), ?)",
        (marked,),
    ).fetchone()
    (present,) = ledger.db.execute("SELECT COUNT(*) FROM pending").fetchone()
    if counters.sequence < highest:
        counters.base += highest - counters.sequence
        counters.sequence = highest
    missing = counters.pending - present
    if missing > 0:
        counters.dropped["lost"] = counters.dropped.get("lost", 0) + missing
    elif missing < 0:
        counters.base += missing


@dataclass
class Snapshot:
    """The sound rows of every table by their key, and the counters if there are."""

    rows: dict[str, dict[Value, Row]] = field(default_factory=dict)
    counters: Counters | None = None
    #: Why there is nothing; None when it was read, or there was no file.
    unreadable: str | None = None

    @property
    def generation(self) -> int:
        """Which of two journals of one machine is the newer."""
        return self.counters.generation if self.counters else 0


def _age_key(contents: Snapshot) -> tuple[int, bool]:
    return contents.generation, contents.counters is not None


def recover(path: Path, scratch: Path) -> Snapshot:
    """The rows that can be read of the file at `path`, however damaged it is.

    It is read from a copy in the folder `scratch`: SQLite cannot read a log on a
    read-only disk, and the original stays as it was found.
    """
    if not path.is_file():
        return Snapshot()
    try:
        with tempfile.TemporaryDirectory(dir=scratch, prefix="recover-") as folder:
            return _read_copy(path, Path(folder))
    except (OSError, sqlite3.Error) as error:
        log.warning("nothing of %s can be recovered: %s", path, error)
        return Snapshot(unreadable=str(error))


def read_snapshot(db: sqlite3.Connection) -> Snapshot:
    """The sound rows that can be read; never an error."""
    try:
        if db.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
            return Snapshot()
    except sqlite3.Error as error:
        log.info("nothing to recover: %s", error)
        return Snapshot()
    found = {table: _sound_rows(db, table) for table in TABLES}
    counters = sound_json(found["facts"].get("counters"), 1)
    return Snapshot(found, Counters.of_json(counters) if counters else None)


def _read_copy(path: Path, folder: Path) -> Snapshot:
    copied = folder / path.name
    shutil.copyfile(path, copied)
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(log_of(path), log_of(copied))
    with contextlib.closing(connect(copied, _TOLERANT)) as db:
        return read_snapshot(db)


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
