"""What a run's processes use, and have used, of the machine.

Sampling must not disturb the job: a control group's own figures where there is one,
else /proc/PID/stat and statm, which take no lock of the process (smaps does, for 40 ms
at 4 GB). Pages that are shared after a fork are then counted once for each process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from miglet.runner.procfs import (
    USER_TICKS,
    WAITED_TICKS,
    WAITED_TICKS_END,
    content,
)

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: How much of one core sampling may take.
SAMPLE_SHARE = 0.01


@dataclass(frozen=True)
class Usage:
    """The resources of a tree of processes, from its start until one moment."""

    #: To the millisecond: the kernel counts living processes in ticks of 10 ms.
    cpu_seconds: float = 0.0
    #: Memory at that moment; its peak, after `peak` with earlier ones.
    max_memory_bytes: int = 0
    io_read_bytes: int = 0
    io_write_bytes: int = 0

    def peak(self, earlier: Usage) -> Usage:
        """Each figure at its highest: none of them falls when a process is lost."""
        return Usage(
            max(self.cpu_seconds, earlier.cpu_seconds),
            max(self.max_memory_bytes, earlier.max_memory_bytes),
            max(self.io_read_bytes, earlier.io_read_bytes),
            max(self.io_write_bytes, earlier.io_write_bytes),
        )


class UsageSampler:
    """Takes samples as often as is wanted, but rarely where one takes long.

    On a machine with thousands of processes it takes no more than SAMPLE_SHARE of one
    core.
    """

    def __init__(self, measure: Callable[[], Usage]) -> None:
        """`measure` is `Run.usage` of the run."""
        self._measure = measure
        self._due = 0.0
        #: Each figure at its highest so far.
        self.peak = Usage()

    def due_in(self, now: float) -> float:
        """Seconds from monotonic time `now` until the next sample."""
        return max(0.0, self._due - now)

    def sample(self, now: float, pause: float) -> Usage:
        """The peak after a new sample; the next one is due after `pause` or later."""
        began = time.thread_time()
        self.peak = self._measure().peak(self.peak)
        cost = time.thread_time() - began
        self._due = now + max(pause, cost / SAMPLE_SHARE)
        return self.peak


def usage_of(
    processes: Mapping[int, list[bytes]], pids: Collection[int], shim: int | None
) -> Usage:
    """What `pids` of `processes` use now, with the dead that they waited for.

    `shim` is a pid, of which only what it inherited from dead orphans counts.
    """
    living = [processes[pid] for pid in pids]
    ticks = sum(sum(map(int, stat[USER_TICKS:WAITED_TICKS_END])) for stat in living)
    collected = processes.get(shim or 0, [])
    ticks += sum(map(int, collected[WAITED_TICKS:WAITED_TICKS_END]))
    read, written = zip(*map(io_bytes, [*pids, shim or 0]), strict=True)
    return Usage(
        round(ticks / TICKS_A_SECOND, 3), memory_bytes(pids), sum(read), sum(written)
    )


def memory_bytes(pids: Collection[int]) -> int:
    """The resident memory of all together.

    Of what is mapped from files, such as a program's code, only the process that has
    most of it counts: twenty compilers do not look like twenty times their size.
    """
    own = mapped = 0
    for pid in pids:
        with suppress(OSError):
            _, resident, shared, *_ = map(int, content(f"/proc/{pid}/statm").split())
            own += resident - shared
            mapped = max(mapped, shared)
    return (own + mapped) * PAGE_BYTES


def io_bytes(pid: int) -> tuple[int, int]:
    """Bytes that `pid` caused to be read from and written to storage (proc(5)).

    Nothing where the process is gone, or its figures are not for us.
    """
    try:
        lines = content(f"/proc/{pid}/io").splitlines()
    except OSError:
        return 0, 0
    fields = dict(line.split(b":") for line in lines)
    return int(fields[b"read_bytes"]), int(fields[b"write_bytes"])
