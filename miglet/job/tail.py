"""Reading files that somebody hostile may have made, a bounded piece at a time.

Only regular files are read, never through a symbolic link, and opening never blocks:
a fifo, a device or a link in a place of ours is refused with its reason.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from miglet.errors import RunnerError

LINE_LIMIT_BYTES = 8192
_CHUNK_BYTES = 65536

_REASONS = {
    errno.ELOOP: "is a symbolic link",
    errno.ENXIO: "is not a regular file",
    errno.ENODEV: "is not a regular file",
    errno.ENAMETOOLONG: "has too long a name",
}
#: Terminal sequences (ECMA-48 CSI, OSC, other escapes) first, then whatever else
#: steers a terminal or reorders text: C0 without tab, DEL, C1, separators, bidi.
_UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]?"
    "|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]"
)


class NotPlain(RunnerError):
    """What should be a plain file is something else; says what."""


def open_folder(path: Path) -> int:
    """A descriptor of the folder, for `dir_fd`; raises OSError, also for a link."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_plain(name: str | Path, folder: int | None = None) -> int:
    """A descriptor of the regular file `name`, which nobody else has a link to.

    Raises NotPlain where it is something else, OSError where it cannot be opened.
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


def _why_not_plain(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    return "has a second link" if status.st_nlink > 1 else ""


def readable(raw: bytes) -> str:
    """A line as text that is safe to print: no control characters, no sequences."""
    text = raw.decode("utf-8", "replace")
    return text if text.isprintable() else _UNPRINTABLE.sub("", text)


class Lines:
    """Bytes in, lines out; a line longer than `limit` is cut and the rest dropped."""

    def __init__(self, limit: int = LINE_LIMIT_BYTES) -> None:
        #: Bytes of a line that are kept; may be changed between two calls.
        self.limit = limit
        #: Bytes that were dropped because their line was too long.
        self.dropped_bytes = 0
        self._begun = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that `chunk` completes, without their ends."""
        *complete, begun = chunk.split(b"\n")
        for piece in complete:
            yield self._finished(piece)
        self._append(begun)

    def rest(self) -> bytes:
        """The line that has begun and will not be completed."""
        return self._finished(b"")

    def _finished(self, piece: bytes) -> bytes:
        if self._begun or len(piece) > self.limit:
            self._append(piece)
            piece = bytes(self._begun)
            self._begun.clear()
        return piece.rstrip(b"\r")

    def _append(self, piece: bytes) -> None:
        room = max(0, self.limit - len(self._begun))
        self._begun += piece[:room]
        self.dropped_bytes += max(0, len(piece) - room)


class Followed:
    """An open file that grows, and how far it has been read."""

    def __init__(self, descriptor: int, offset: int = 0) -> None:
        status = os.fstat(descriptor)
        #: Which file it is, whatever it is called by now.
        self.inode = (status.st_dev, status.st_ino)
        self._descriptor = descriptor
        self._offset = offset

    def chunks(self, budget: int) -> Iterator[bytes]:
        """What is new, `budget` bytes at most."""
        while budget > 0:
            chunk = os.pread(self._descriptor, min(_CHUNK_BYTES, budget), self._offset)
            if not chunk:
                return
            self._offset += len(chunk)
            budget -= len(chunk)
            yield chunk

    def exhausted(self) -> bool:
        """Whether all there is at this moment has been read."""
        return os.fstat(self._descriptor).st_size <= self._offset

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)
