"""Files that grow and that a job may write: followed a bounded piece at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

#: What is kept of a line's beginning, and of its end where it is longer.
LINE_LIMIT_BYTES = 8192
LINE_END_BYTES = 256

CHUNK_BYTES = 65536

#: What is read of one file, and of all files of a run, before only ends are read.
FILE_BUDGET_BYTES = 32 << 20
RUN_BUDGET_BYTES = 128 << 20

#: Terminal sequences (ECMA-48 CSI, OSC, other escapes) first, then whatever else
#: controls a terminal or reorders text: C0 without tab, DEL, C1, separators, bidi.
_UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]?"
    "|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def readable(raw: bytes) -> str:
    """A line as text that is safe to print: no control characters, no sequences."""
    text = raw.decode("utf-8", "replace")
    return text if text.isprintable() else _UNPRINTABLE.sub("", text)


class Lines:
    """Splits bytes into lines; of a line longer than `limit` both ends are kept.

    The end matters as much as the beginning: a result stands behind a job's name,
    which may be of any length.
    """

    def __init__(self, limit: int = LINE_LIMIT_BYTES) -> None:
        self._limit = limit
        self._line = bytearray()
        self._end = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that `chunk` completes, without their line ends."""
        *complete, begun = chunk.split(b"\n")
        for piece in complete:
            line = self._finish(piece)
            if self._skipping:
                self._skipping = False
            else:
                yield line
        self._append(begun)

    def rest(self) -> bytes:
        """The line that has begun and will not be completed."""
        return b"" if self._skipping else self._finish(b"")

    def resynchronize(self) -> None:
        """Forget the present line: what follows was read from the middle of a file."""
        self._line.clear()
        self._end.clear()
        self._skipping = True

    def _finish(self, piece: bytes) -> bytes:
        if self._line or len(piece) > self._limit:
            self._append(piece)
            piece = bytes(self._line + self._end)
            self._line.clear()
            self._end.clear()
        return piece.rstrip(b"\r")

    def _append(self, piece: bytes) -> None:
        room = self._limit - len(self._line)
        self._line += piece[:room]
        if len(piece) > room:
            excess = piece[max(room, len(piece) - LINE_END_BYTES) :]
            self._end = (self._end + excess)[-LINE_END_BYTES:]


class Budget:
    """How many bytes may still be read, of one file and of all files of a run."""

    def __init__(self, limit_bytes: int, whole: Budget | None = None) -> None:
        self._left = limit_bytes
        self._whole = whole

    @property
    def left(self) -> int:
        """Bytes that may still be read."""
        return min(self._left, self._whole.left) if self._whole else self._left

    def spend(self, count: int) -> None:
        """Note that `count` bytes were read."""
        self._left -= count
        if self._whole:
            self._whole.spend(count)


class Followed:
    """An open file that grows, and how far it has been read.

    Nothing is read beyond `budget`: a sparse file of terabytes costs as much time as
    one of that size. `jump_to_end` then gives access to the last part.
    """

    def __init__(self, descriptor: int, budget: Budget, offset: int = 0) -> None:
        status = os.fstat(descriptor)
        #: Which file it is, under whatever name.
        self.inode = (status.st_dev, status.st_ino)
        self._descriptor = descriptor
        self._budget = budget
        self._offset = offset

    def chunks(self, limit: int) -> Iterator[bytes]:
        """What is new, at most `limit` bytes of it."""
        while (count := min(CHUNK_BYTES, limit, self._budget.left)) > 0:
            chunk = os.pread(self._descriptor, count, self._offset)
            if not chunk:
                return
            self._offset += len(chunk)
            self._budget.spend(len(chunk))
            limit -= len(chunk)
            yield chunk

    def exhausted(self) -> bool:
        """Whether all has been read that is there now and within the budget."""
        return self._budget.left <= 0 or self._size() <= self._offset

    def jump_to_end(self) -> bool:
        """Skip what exceeds the budget, but for the last chunk; whether it skipped."""
        self._budget = Budget(CHUNK_BYTES)
        target = self._size() - CHUNK_BYTES
        if target <= self._offset:
            return False
        self._offset = target
        return True

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size
