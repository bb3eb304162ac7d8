"""What a run's processes use, and have used, of the machine.

Figures of living processes come from /proc; a process that has gone counts through
whoever waited for it, at the last through the shim.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from miglet.runner.processes import (
    CHILD_SYSTEM_TICKS,
    CHILD_USER_TICKS,
    SYSTEM_TICKS,
    USER_TICKS,
    stat_of,
)

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """The resources of a tree of processes, from its start until one moment."""

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


def usage_of(pids: Iterable[int], keeper: int | None) -> Usage:
    """What `pids` use now, with the dead that were waited for.

    `keeper` is the shim, of which only what it inherited from dead orphans counts.
    """
    living = list(pids)
    waiting = [keeper] if keeper else []
    read, written = zip(*map(io_bytes, [*living, *waiting, 0]), strict=True)
    return Usage(
        sum(map(cpu_seconds, living)) + sum(map(waited_seconds, waiting)),
        sum(map(memory_bytes, living)),
        sum(read),
        sum(written),
    )


def cpu_seconds(pid: int) -> float:
    """CPU time of `pid` and of the children that it waited for."""
    return ticks(pid, USER_TICKS, SYSTEM_TICKS) + waited_seconds(pid)


def waited_seconds(pid: int) -> float:
    """CPU time of the children that `pid` waited for."""
    return ticks(pid, CHILD_USER_TICKS, CHILD_SYSTEM_TICKS)


def ticks(pid: int, *fields: int) -> float:
    """The sum of clock-tick fields of `pid`, in seconds; 0 when it is gone."""
    stat = stat_of(pid)
    return sum(int(stat[field]) for field in fields) / TICKS_A_SECOND if stat else 0.0


def memory_bytes(pid: int) -> int:
    """The proportional set size of `pid`, else its resident set.

    Shared pages are then counted once over the tree: twenty compilers that map the
    same binary do not look like twenty times its size.
    """
    for line in lines_of(pid, "smaps_rollup"):
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    for line in lines_of(pid, "statm"):
        return int(line.split()[1]) * PAGE_BYTES
    return 0


def io_bytes(pid: int) -> tuple[int, int]:
    """Bytes that `pid` caused to be read from and written to storage (proc(5))."""
    fields = dict(line.split(b":") for line in lines_of(pid, "io"))
    return int(fields.get(b"read_bytes", 0)), int(fields.get(b"write_bytes", 0))


def lines_of(pid: int, name: str) -> list[bytes]:
    """A file of /proc/PID; empty when the process is gone or the file not for us."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read().splitlines()
    except OSError:
        return []
