"""Keeps the journal writable: when its file fails, it fails over to the next.

The candidates are tried in order, memory is the last. A failover happens inside the
write that failed, which is then repeated in the new place: nothing committed is lost.
Only rows whose checksum is right are carried over; what is missing is counted as
dropped, so that the counters add up in the new file too.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from miglet.errors import JournalUnusable
from miglet.journal.ledger import Ledger, Snapshot
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
        #: The candidates before it cannot be used by this process.
        self._position = 0
        #: Places whose damaged file this process has replaced while it was in use.
        self._replaced: set[Path] = set()
        #: What was read of files that are not in use.
        self._rescued: list[Snapshot] = []
        with contextlib.ExitStack() as undo:
            self.sequence_files = SequenceFiles(self.candidates)
            undo.callback(self.sequence_files.close)
            self._report_missing_journal()
            self.storage = self._open_next()
            self._adopt_newest()
            self._set_damaged_rows_aside()
            undo.pop_all()

    def close(self) -> None:
        """Close the storage in use; its file stays as large as it is."""
        self.storage.close()
        self.sequence_files.close()

    def write(self, change: Callable[[Ledger], Outcome]) -> Outcome:
        """Make `change` in one transaction, wherever that is possible.

        Raises JournalUnusable when even memory fails.
        """
        return self._attempt(lambda storage: storage.write(change))

    def read(self, query: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """What `query` finds, wherever it can be read."""
        return self._attempt(lambda storage: query(storage.db))

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
        has_room = self.read(lambda db: Ledger(db, counters).has_room_for_report())
        if drops and has_room:
            self.write(Ledger.mark_drops_reported)
            text = f"{sum(drops.values())} events were dropped (no room, or damaged)"
            self.report("events_dropped", text, dict(drops))
        found, self.findings = self.findings, []
        return found

    # The start.

    def _report_missing_journal(self) -> None:
        known = self.sequence_files.highest()
        if known and not any(path.exists() for path in self.candidates):
            text = f"the journal of {known} events is gone: what it held is lost"
            self.report("journal_reset", text, {"events_rescued": 0})

    def _adopt_newest(self) -> None:
        """Take over what another place knows, if it was used later than this one.

        Where this place is not the first, what it holds becomes a newer generation
        even if nothing is taken over: the first must not win at the next start.
        """
        for path in self.candidates:
            if path != self.storage.path:
                self._rescue(path)
        if self._rescued or self.degraded:
            own = Snapshot.read(self.storage.db)
            self._load(max([*self._rescued, own], key=Snapshot.age))
        for path in self.candidates[self._position + 1 :]:
            with contextlib.suppress(OSError):
                discard(path)

    def _set_damaged_rows_aside(self) -> None:
        marked = self.sequence_files.highest()
        damaged = self.write(lambda ledger: ledger.audit(marked))
        if damaged:
            text = "rows with a wrong checksum were set aside"
            self.report("rows_damaged", text, {"rows": damaged})

    # The next usable place.

    def _open_next(self) -> Storage:
        """Open the first candidate that works; memory when there is none left."""
        for path in self.candidates[self._position :]:
            try:
                return self._open(path)
            except (OSError, sqlite3.Error) as error:
                self._leave(path, error)
        return in_memory(self.sequence_files)

    def _open(self, path: Path) -> Storage:
        """Open the journal at `path`, a new one if the present one is damaged."""
        try:
            return open_file(path, self.sequence_files)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            newer = isinstance(error, JournalNewer)
            rescued = self._rescue(path)
            aside = quarantine(path, "newer" if newer else "corrupt")
            self.report(
                "journal_newer" if newer else "journal_reset",
                f"{path} could not be used ({error}); it is kept as {aside.name}",
                {"events_rescued": len(rescued.rows.get("pending", ()))},
            )
            return open_file(path, self.sequence_files)

    def _rescue(self, path: Path) -> Snapshot:
        """Read what can be read of a file that is not in use, however damaged it is."""
        contents = Snapshot()
        try:
            if not path.is_file():
                return contents
            contents = read_file(path, self.candidates[-1].parent)
        except (OSError, sqlite3.Error) as error:
            text = f"{path} cannot be read ({error}): what it held is lost"
            self.report("journal_reset", text, {"events_rescued": 0})
        self._rescued.append(contents)
        return contents

    def _leave(self, path: Path, error: Exception) -> None:
        """Use this candidate, which is the present one, no more."""
        reason = f"{path}: {error}"
        log.error("the journal cannot be kept in %s", reason)
        self.degraded = f"{self.degraded}; {reason}" if self.degraded else reason
        self._position += 1

    # The failover.

    def _attempt(self, operation: Callable[[Storage], Outcome]) -> Outcome:
        while True:
            try:
                return operation(self.storage)
            except sqlite3.ProgrammingError:
                raise
            except sqlite3.DatabaseError as error:
                self._fail_over(error)

    def _fail_over(self, error: sqlite3.DatabaseError) -> None:
        failed, contents = self.storage, Snapshot.read(self.storage.db)
        contents.counters = failed.counters
        failed.abandon()
        if failed.path is None:
            raise JournalUnusable(f"the journal cannot be kept: {error}") from error
        self.report("journal_moved", f"{failed.path} failed: {error}", {})
        if not self._quarantine_damaged(failed.path, error):
            self._leave(failed.path, error)
        self.storage = self._open_next()
        # At the start the next place may hold what was to be taken over from it.
        if self.storage.counters.generation <= contents.counters.generation:
            self._load(contents)

    def _quarantine_damaged(self, path: Path, error: sqlite3.DatabaseError) -> bool:
        """Set a damaged file aside; whether a new one can be made in its place.

        Once for each place: a disk that damages the new file too is not used again.
        """
        if isinstance(error, sqlite3.OperationalError) or path in self._replaced:
            return False
        self._replaced.add(path)
        try:
            quarantine(path, "corrupt")
        except OSError as refused:
            log.warning("%s cannot be set aside: %s", path, refused)
            return False
        return True

    def _load(self, contents: Snapshot) -> None:
        marked = self.sequence_files.highest()
        self.write(lambda ledger: ledger.load(contents, marked))
        self._rescued.clear()


def read_file(path: Path, scratch: Path) -> Snapshot:
    """The sound rows of the file at `path`, from a copy in the folder `scratch`.

    SQLite cannot read a log on a read-only disk, and the original stays as it was
    found. Raises OSError or sqlite3.Error where nothing can be read.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="recover-") as folder:
        copied = Path(folder, path.name)
        shutil.copyfile(path, copied)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(log_of(path), log_of(copied))
        with contextlib.closing(connect(copied, _TOLERANT)) as db:
            return Snapshot.read(db)
