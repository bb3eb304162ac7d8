"""The files around a journal: its log, and those that were set aside.

A name is only changed while no connection has the file open, and a log never stays
behind where it could be replayed into another file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

#: What the log is grown to.
LOG_BYTES = 2 * 1024 * 1024

#: How many files that were set aside are kept.
ASIDE_FILES = 3


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


def second_name(log_path: Path) -> Path | None:
    """Give the log a second name before the connection that owns it is closed."""
    # SQLite deletes the log with the last connection; under a second name its room
    # stays ours.
    kept = log_path.with_name(log_path.name + "-kept")
    try:
        kept.unlink(missing_ok=True)
        os.link(log_path, kept)
    except OSError:
        return None
    return kept


def put_back(kept: Path | None, log_path: Path) -> None:
    """Give the log its own name back, emptied."""
    if kept is None:
        return
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


def set_aside(path: Path, why: str) -> Path:
    """Rename the file and its log so that a new one can be made; the new name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = _unused(path, f"{why}-{stamp}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(log_of(path), log_of(aside))
    os.rename(path, aside)
    _forget_old(path, why)
    return aside


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive the loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unused(path: Path, ending: str) -> Path:
    candidate, number = path.with_name(f"{path.name}.{ending}"), 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{ending}.{number}")
    return candidate


def _forget_old(path: Path, why: str) -> None:
    aside = [
        name
        for name in path.parent.glob(f"{path.name}.{why}-*")
        if not name.name.endswith("-wal")
    ]
    aside.sort(key=lambda name: name.stat().st_mtime)
    for old in aside[:-ASIDE_FILES]:
        log.info("deleted %s, an old journal that was set aside", old)
        with contextlib.suppress(OSError):
            discard(old)
