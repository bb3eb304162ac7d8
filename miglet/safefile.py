"""Files that others may write: read without a trap, and compared with earlier.

Only regular files are read, never through a symbolic link, and opening never blocks: a
FIFO, a device or a link where a file should be is refused with its reason.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

_REASONS = {
    errno.ELOOP: "is a symbolic link",
    errno.ENXIO: "is not a regular file",
    errno.ENODEV: "is not a regular file",
    errno.ENAMETOOLONG: "has too long a name",
}


class NotPlain(OSError):
    """What should be a plain file is something else; says what."""


def open_folder(path: Path) -> int:
    """A descriptor of the folder, for `dir_fd`; raises OSError, also for a link."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_plain(name: str | Path, folder: int | None = None) -> int:
    """A descriptor of the regular file `name`, which nobody else has a link to.

    Raises NotPlain where it is something else, another OSError where it cannot be
    opened.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in _REASONS:
            raise NotPlain(_REASONS[error.errno]) from error
        raise
    reason = _why_not_plain(os.fstat(descriptor))
    if reason:
        os.close(descriptor)
        raise NotPlain(reason)
    return descriptor


def read_small(path: str | Path, limit_bytes: int) -> bytes:
    """A plain file of at most `limit_bytes`; raises OSError for anything else."""
    with open(open_plain(path), "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise NotPlain(f"is larger than {limit_bytes} bytes")
    return content


def _why_not_plain(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    return "has a second link" if status.st_nlink > 1 else ""


class Fingerprint(NamedTuple):
    """What changes about a file when its content does."""

    modified_ns: int
    inode: int
    size: int


def fingerprint(path: str | Path) -> Fingerprint:
    """Today's fingerprint of the file; raises OSError if there is none."""
    seen = os.stat(path)
    return Fingerprint(seen.st_mtime_ns, seen.st_ino, seen.st_size)
