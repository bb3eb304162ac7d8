"""Scheduling, and children that do not end: what the kernel knows of us."""

from __future__ import annotations

import contextlib
import os
import subprocess

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
