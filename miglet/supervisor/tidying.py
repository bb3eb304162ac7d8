"""Giving back memory that was freed: before the fork, and while a process lives.

There is next to no garbage, but only a full collection gives back what the interpreter
keeps of freed tuples, up to 2,000 of each length, and by itself it hardly ever makes
one. What was there before the fork is frozen: it takes a fraction of a millisecond.
"""

from __future__ import annotations

import ctypes
import gc
import time

#: Seconds between two of them.
INTERVAL_SECONDS = 10.0


def give_back_memory() -> None:
    """Have the C library return what is free in it, so that no worker inherits it."""
    ctypes.CDLL(None).malloc_trim(0)


class Tidying:
    """Collects when it is time, as a loop asks it on the way."""

    def __init__(self) -> None:
        self._due = time.monotonic() + INTERVAL_SECONDS

    def look(self, now: float) -> None:
        """Collect if the last collection is long ago, by this monotonic time."""
        if now >= self._due:
            self._due = now + INTERVAL_SECONDS
            gc.collect()
