"""The runner's performance counters (`RUNNER_PERFLOG`), the earliest sign of a job.

Both processes of the runner append `COUNTER:TIME` lines to a file each, in a folder
that is made for the run (actions/runner HostContext.cs).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from miglet.formats import parse_rfc3339
from miglet.job import signs
from miglet.job.listener_output import BUDGET_BYTES
from miglet.job.signs import Sign
from miglet.job.tail import Budget, Followed, Lines, readable
from miglet.safefile import open_plain

NAMES = ("Runner.perf", "Worker.perf")

_LINE = re.compile(r"(\w[\w.-]*):(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z)")
_COUNTERS: list[tuple[str, type[Sign]]] = [
    ("MessageReceived_RunnerJobRequest", signs.JobRequested),
    ("MessageReceived_PipelineAgentJobRequest", signs.JobRequested),
    ("MessageReceived_JobCancellation", signs.CancelReceived),
    ("StartingWorkerProcess", signs.WorkerStarted),
    ("WorkerProcessStarted", signs.WorkerStarted),
    ("WorkerJobMessageReceived", signs.WorkerStarted),
]


def parse_counter(text: str) -> Sign | None:
    """What a counter says, or None."""
    match = _LINE.fullmatch(text)
    at = parse_rfc3339(match[2]) if match else None
    if match is None or at is None:
        return None
    for counter, sign in _COUNTERS:
        if match[1].startswith(counter):
            return sign(at, "perflog")
    return None


class PerfLog:
    """The two files of counters in `folder`."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._path = folder
        self._budget = budget
        self._files: dict[str, tuple[Followed, Lines]] = {}
        #: Whether the last call left something unread: call again.
        self.behind = False

    def read(self) -> list[Sign]:
        """The signs in what is new."""
        for name in NAMES:
            if name not in self._files:
                self._open(name)
        found = [sign for file in self._files.values() for sign in _signs(*file)]
        self.behind = not all(file.exhausted() for file, _ in self._files.values())
        return found

    def close(self) -> None:
        """Give the files back."""
        for file, _ in self._files.values():
            file.close()
        self._files.clear()

    def _open(self, name: str) -> None:
        try:
            descriptor = open_plain(self._path / name)
        except OSError:
            return
        self._files[name] = Followed(descriptor, self._budget), Lines()


def _signs(file: Followed, lines: Lines) -> Iterator[Sign]:
    for chunk in file.chunks(BUDGET_BYTES):
        for raw in lines.feed(chunk):
            sign = parse_counter(readable(raw))
            if sign:
                yield sign
