"""Scheduling, memory, and children that do not end: what the kernel knows of us."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import subprocess
import time

#: Seconds between two full collections.
COLLECTION_SECONDS = 10.0

#: Seconds that a killed process may take to end before it is left to itself.
KILL_SECONDS = 1.0


class RunQueue:
    """The scheduler's account of us, open for as long as we live.

    Source: /proc/PID/schedstat, sched-stats.rst of the kernel; its second figure is the
    time spent waiting on a run queue, in nanoseconds.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):  # a kernel without the account
            self._file = os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def waited(self) -> float:
        """Seconds since we were started; 0 where the kernel does not count them."""
        if self._file is None:
            return 0.0
        return int(os.pread(self._file, 64, 0).split()[1]) / 1e9


def give_back_memory() -> None:
    """Have the C library return what is free in it, so that no worker inherits it."""
    ctypes.CDLL(None).malloc_trim(0)


class GcTimer:
    """Makes a full collection now and then, when the loop that owns it comes round.

    There is next to no garbage, but only a full collection gives back what the
    interpreter keeps of freed tuples, up to 2,000 of each length, and by itself it
    hardly ever makes one. What was there before the fork is frozen, so that it takes a
    fraction of a millisecond.
    """

    def __init__(self) -> None:
        self._due = time.monotonic() + COLLECTION_SECONDS

    def collect_if_due(self, now: float) -> None:
        """Collect if the last collection is long ago, by this monotonic time."""
        if now >= self._due:
            self._due = now + COLLECTION_SECONDS
            gc.collect()


def finish(process: subprocess.Popen[bytes], given: bytes, seconds: float) -> bytes:
    """Give a process its input, wait for its end; what it wrote to stderr.

    Raises subprocess.TimeoutExpired after killing it. A process that is stuck in the
    kernel ends when that lets it: it is not waited for.
    """
    try:
        return process.communicate(given, seconds)[1] or b""
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)
        raise
    finally:
        for stream in (process.stdin, process.stderr):
            if stream:
                stream.close()
