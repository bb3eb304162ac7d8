"""What the benchmarks measure with: time, memory and processor of real processes."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.terminal import Terminal

CALLS = 15


class Clock:
    """Lets time pass that is measured over, and shows that it does."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def wait(self, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._terminal.waiting(what)
            time.sleep(min(left, 1.0))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for what takes as long as it takes."""
        while not condition():
            self._terminal.waiting(what)
            time.sleep(0.05)


def rollup_bytes(process: psutil.Process, key: str) -> int:
    """A figure of the process's memory, proc_pid_smaps(5)."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1]) * 1024


def pss_bytes(tree: list[psutil.Process]) -> int:
    """Their shares of memory."""
    return sum(rollup_bytes(process, "Pss") for process in tree)


def alone_bytes(tree: list[psutil.Process]) -> int:
    """What they would take if no other process used the same programs and libraries.

    Nobody else has their anonymous pages, so that their shares of those add up. Of each
    mapped file the process counts that has most of it in memory: where they have been
    forked, it is mapped at the same address.
    """
    files: dict[str, int] = {}
    for process in tree:
        for each in process.memory_maps(grouped=False):
            resident = each.rss - each.anonymous if each.path.startswith("/") else 0
            files[each.addr] = max(files.get(each.addr, 0), resident)
    anonymous = sum(rollup_bytes(process, "Pss_Anon") for process in tree)
    return anonymous + sum(files.values())


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def cpu_seconds(tree: list[psutil.Process]) -> float:
    """Processor time of all of them so far."""
    return sum(sum(process.cpu_times()[:2]) for process in tree)


def percent(part: float, whole: float) -> str:
    return f"{part / whole * 100:.2f} %"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def median(seconds: list[float]) -> str:
    return milliseconds(statistics.median(seconds))


def quantiles(seconds: list[float]) -> str:
    """The median and the 95th percentile of some durations."""
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return f"{statistics.median(ordered) * 1000:.1f} / {milliseconds(late)}"


def wall_times(command: list[Any]) -> list[float]:
    """Wall time of each of several calls, the first one not counted."""
    took = []
    for _ in range(CALLS + 1):
        began = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        took.append(time.monotonic() - began)
    return took[1:]
