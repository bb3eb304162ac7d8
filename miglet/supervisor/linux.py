"""How long this process was ready to run and others had the processors."""

from __future__ import annotations

import contextlib
import os


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
