"""The last sequence number, in a small file beside each place of the journal.

With it numbers go on when the journal itself is lost or cannot be read. It is not
synced, since it is read only then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)


class Marks:
    """One file for each of the journal's places; one that fails counts for nothing."""

    def __init__(self, journals: Sequence[Path]) -> None:
        opened = map(_opened, journals)
        self._descriptors = [each for each in opened if each is not None]

    def highest(self) -> int:
        """The last sequence number that any of them knows; 0 when none does."""
        return max(map(_number_in, self._descriptors), default=0)

    def note(self, sequence: int) -> None:
        """Have it known to all of them."""
        for each in self._descriptors:
            with contextlib.suppress(OSError):
                os.pwrite(each, _text_of(sequence), 0)

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def _opened(journal: Path) -> int | None:
    name = journal.with_name(journal.name + "-sequence")
    try:
        name.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("no mark of the sequence beside the journal: %s", error)
        return None


def _text_of(sequence: int) -> bytes:
    return b"%020d %010d\n" % (sequence, zlib.crc32(b"%d" % sequence))


def _number_in(descriptor: int) -> int:
    try:
        text = os.pread(descriptor, 64, 0)
    except OSError as error:
        log.warning("a mark of the sequence cannot be read: %s", error)
        return 0
    number = text.split(b" ")[0]
    return int(number) if number.isdigit() and _text_of(int(number)) == text else 0
