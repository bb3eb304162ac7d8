"""One file that holds the journal: made, opened, checked, set aside.

The file and its write-ahead log are grown before first use, so that later neither
events nor acknowledgements need room on the disk. The locks are exclusive: the file
belongs to one process, and no shared memory file is needed beside it.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from miglet.errors import UNAVAILABLE, JournalUnusable
from miglet.journal.ledger import (
    FILE_BYTES,
    FORMAT,
    PAGE_BYTES,
    Counters,
    Ledger,
    create_tables,
    fetch,
    has_tables,
)

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")

#: What the log is grown to.
LOG_BYTES = 2 * 1024 * 1024

#: How many files that were set aside are kept.
QUARANTINED_FILES = 3

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

#: While a new file is made: it is synced, then renamed, once it is whole.
_UNSAFE = (
    f"page_size = {PAGE_BYTES}",
    "journal_mode = OFF",
    "synchronous = OFF",
    "cache_size = -256",
)

#: Of SQLite's file format (https://www.sqlite.org/fileformat2.html, 1.3 and 1.5): where
#: the header has the number of pages, the first trunk page of the free list and the
#: number of free pages, and how many pages a trunk page lists besides itself.
_HEADER = struct.Struct(">III")
_HEADER_OFFSET = 28
_LEAVES_PER_TRUNK = PAGE_BYTES // 4 - 8


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

    def __init__(
        self, path: Path | None, db: sqlite3.Connection, sequence_files: SequenceFiles
    ) -> None:
        self.path = path
        self.db = db
        self.sequence_files = sequence_files
        self.counters = Counters.of_row(fetch(db, "facts", "counters"))

    def write(self, change: Callable[[Ledger], Outcome]) -> Outcome:
        """Make `change` in one transaction: all of it, or sqlite3.Error and nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            ledger = Ledger(self.db, copy.deepcopy(self.counters))
            outcome = change(ledger)
            ledger.save_counters()
            self.db.execute("COMMIT")
        finally:
            if self.db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
        self.counters = ledger.counters
        self.sequence_files.note(self.counters.sequence)
        return outcome

    def checkpoint(self) -> None:
        """Empty the log into the file; a failure costs nothing but the time."""
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close the file and leave its log grown, for a start on a full disk."""
        self.checkpoint()
        if self.path is None:
            self.abandon()
        else:
            with _kept_log(log_of(self.path)):
                self.abandon()

    def abandon(self) -> None:
        """Close the connection as it is."""
        with contextlib.suppress(sqlite3.Error):
            self.db.close()


def open_file(path: Path, sequence_files: SequenceFiles) -> Storage:
    """Open the journal at `path`, made first where there is none, and check it.

    Raises OSError or sqlite3.OperationalError where it cannot be written,
    JournalInUse when it belongs to another process, JournalDamaged when it is none.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _create(path)
    grow_log(path)
    try:
        return _open_exclusively(path, sequence_files)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise JournalInUse(f"{path} is in use by another process") from error


def in_memory(sequence_files: SequenceFiles) -> Storage:
    """A journal that ends with this process; the last resort."""
    db = connect(None)
    create_tables(db)
    return Storage(None, db, sequence_files)


def _create(path: Path) -> None:
    # Under another name until it is whole: a crash leaves nothing that looks usable.
    unfinished = path.with_name(path.name + ".new")
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
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    with contextlib.closing(connect(path, _UNSAFE)) as db:
        create_tables(db)
    with path.open("r+b", buffering=0) as file:
        _add_free_pages(file.fileno())
        os.fsync(file.fileno())


def _add_free_pages(descriptor: int) -> None:
    """Grow a new file to its bound with pages that are in SQLite's list of free ones.

    SQLite itself can only do this by writing and reading each page: 30 ms of a start.
    """
    header = os.pread(descriptor, _HEADER.size, _HEADER_OFFSET)
    used, trunk, _ = _HEADER.unpack(header)
    assert trunk == 0, "a new file has no free pages"
    pages = FILE_BYTES // PAGE_BYTES
    os.posix_fallocate(descriptor, 0, FILE_BYTES)
    first, trunk = used + 1, 0
    for start in range(first, pages + 1, _LEAVES_PER_TRUNK + 1):
        leaves = range(start + 1, min(start + _LEAVES_PER_TRUNK, pages) + 1)
        listed = struct.pack(f">{2 + len(leaves)}I", trunk, len(leaves), *leaves)
        os.pwrite(descriptor, listed, (start - 1) * PAGE_BYTES)
        trunk = start
    header = _HEADER.pack(pages, trunk, pages - used)
    os.pwrite(descriptor, header, _HEADER_OFFSET)


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


def _open_exclusively(path: Path, sequence_files: SequenceFiles) -> Storage:
    with contextlib.ExitStack() as undo:
        db = undo.enter_context(contextlib.closing(connect(path)))
        # This takes the lock, and the connection keeps it as long as it lives.
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise sqlite3.OperationalError(f"no write-ahead log here, but {mode}")
        _check(db)
        storage = Storage(path, db, sequence_files)
        undo.pop_all()
        return storage


def _check(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise JournalNewer(f"format {version}, newer than {FORMAT}")
    if version != FORMAT or not has_tables(db):
        raise JournalDamaged("the file holds no journal")
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise JournalDamaged(f"the file is damaged: {verdict}")


def log_of(path: Path) -> Path:
    """The path of the file's write-ahead log."""
    return path.with_name(path.name + "-wal")


def grow_log(path: Path) -> None:
    """Give the log its full size now; without it a full disk stops the journal."""
    descriptor = os.open(log_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < LOG_BYTES:
            os.posix_fallocate(descriptor, 0, LOG_BYTES)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _kept_log(log_path: Path) -> Iterator[None]:
    """Keep the log's room while its connection is closed, and leave the log empty."""
    # SQLite deletes the log with the last connection, but not its second name.
    kept = log_path.with_name(log_path.name + "-kept")
    with contextlib.suppress(OSError):
        kept.unlink(missing_ok=True)
        os.link(log_path, kept)
    yield
    with contextlib.suppress(OSError):
        if log_path.exists():  # not everything in it could be moved into the file
            kept.unlink()
            return
        with kept.open("r+b") as emptied:
            emptied.write(bytes(32))
        kept.rename(log_path)


def discard(path: Path) -> None:
    """Delete a journal whose contents are elsewhere; OSError if that is impossible."""
    for name in (log_of(path), path):
        name.unlink(missing_ok=True)


def quarantine(path: Path, why: str) -> Path:
    """Rename the file and its log so that a new one can be made; the new name."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.{why}-{stamp}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(log_of(path), log_of(aside))
    os.rename(path, aside)
    by_age = sorted(path.parent.glob(f"{path.name}.{why}-*Z"))
    for old in by_age[:-QUARANTINED_FILES]:
        log.info("deleted %s, an old journal that was set aside", old)
        with contextlib.suppress(OSError):
            discard(old)
    return aside


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive the loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SequenceFiles:
    """The last sequence number, in a small file beside each place of the journal.

    With it numbers go on when the journal itself is lost or cannot be read. It is not
    synced, since it is read only then; a file that fails is ignored.
    """

    def __init__(self, journals: Sequence[Path]) -> None:
        opened = map(_open_sequence_file, journals)
        self._descriptors = [each for each in opened if each is not None]

    def highest(self) -> int:
        """The last sequence number that any of them knows; 0 when none does."""
        return max(map(_read_sequence, self._descriptors), default=0)

    def note(self, sequence: int) -> None:
        """Write it to all of them."""
        for each in self._descriptors:
            with contextlib.suppress(OSError):
                os.pwrite(each, _encode_sequence(sequence), 0)

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def _open_sequence_file(journal: Path) -> int | None:
    name = journal.with_name(journal.name + "-sequence")
    try:
        name.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("no sequence file beside the journal: %s", error)
        return None


def _encode_sequence(sequence: int) -> bytes:
    return b"%020d %010d\n" % (sequence, zlib.crc32(b"%d" % sequence))


def _read_sequence(descriptor: int) -> int:
    try:
        text = os.pread(descriptor, 64, 0)
    except OSError as error:
        log.warning("a sequence file cannot be read: %s", error)
        return 0
    number = int(text[:20]) if text[:20].isdigit() else 0
    return number if text == _encode_sequence(number) else 0
