"""What several test modules share: waiting, open files, and a stopwatch."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

Seen = TypeVar("Seen")


def eventually(
    condition: Callable[[], Seen], seconds: float = 60.0, what: str = ""
) -> Seen:
    """The first true value of `condition`; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        select.select([], [], [], 0.01)


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process lead to, in their order.

    One that is closed while we look is left out.
    """
    targets = []
    for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return targets


def descriptors_before() -> list[str]:
    """The numbers of our descriptors, to compare with those after what is tested.

    What earlier tests have left to the collector of garbage is closed first: it would
    be closed in between otherwise, at any time.
    """
    gc.collect()
    return os.listdir("/proc/self/fd")


class Stopwatch:
    """Seconds since it was made, less those of waiting for a processor.

    A limit on them holds on a busy machine as well. What counts is the waiting of this
    process and of its children that are alive, thread by thread.
    """

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), _waited()

    def seconds(self) -> float:
        """How long it has taken so far."""
        waited = max(0.0, _waited() - self._waited)
        return time.monotonic() - self._began - waited


def _waited() -> float:
    # The second figure is nanoseconds in a run queue (sched-stats.rst of the kernel).
    nanoseconds = 0
    for thread in _threads(Path("/proc/self")):
        with contextlib.suppress(OSError, IndexError):
            nanoseconds += int((thread / "schedstat").read_text().split()[1])
    return nanoseconds / 1e9


def _threads(process: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for thread in (process / "task").iterdir():
            yield thread
            for child in (thread / "children").read_text().split():
                yield from _threads(Path("/proc") / child)
