"""All sources of signs of one run, read together, woken by inotify.

Everything is read from the beginning of the run's files, so a reader that is made
anew after a death tells every sign again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from miglet.job.diag import DiagFolder
from miglet.job.hooks import HookReports
from miglet.job.inotify import CLOSED_AFTER_WRITE, CREATED, MODIFIED, MOVED_IN, Inotify
from miglet.job.listener_output import Tail
from miglet.job.perflog import PerfLog
from miglet.job.signs import Sign
from miglet.job.tail import FILE_BUDGET_BYTES, RUN_BUDGET_BYTES, Budget

log = logging.getLogger(__name__)

#: A source's time stamp is cut to the second; what is seen this soon after it was
#: seen when it happened, and our own clock is the finer one.
_FRESH_SECONDS = 2.0
#: A run's start is recorded when its Listener already runs: what it wrote a moment
#: before that belongs to the run too.
_HEAD_START_SECONDS = 0.5

#: Seconds for which `finish` reads on before it jumps to the files' ends.
FINISH_SECONDS = 1.0


@dataclass(frozen=True)
class Places:
    """Where one run leaves its traces; None where it leaves none of that kind."""

    #: The file that the launcher's shim writes the Listener's output to.
    output: Path | None = None
    job_directory: Path | None = None
    diag_directory: Path | None = None
    perflog_directory: Path | None = None
    #: Logs in `diag_directory` that another run wrote, with their sizes then.
    earlier_logs: Mapping[str, int] = field(default_factory=dict)


class SignReader:
    """Reads what the runner that was started at wall time `started_at` shows.

    `features` (`job_hooks`, `diag_logs`, `perflog`) switches sources off. After
    `open`, wait for `fileno()` and then `read()`; where there is no descriptor, or
    `needs_polling`, read once a second too. When the runner has ended, `finish()`.
    """

    def __init__(
        self,
        places: Places,
        started_at: Callable[[], float],
        features: Mapping[str, bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._started_at = lambda: started_at() - _HEAD_START_SECONDS
        self._clock = clock
        budget = Budget(RUN_BUDGET_BYTES)
        self._tail = self._hooks = self._diag = self._perf = None
        self._inotify: Inotify | None = None
        self._watched: dict[Path, int] = {}
        #: Whether changes of some source do not wake the reader.
        self.needs_polling = True
        if places.output:
            self._tail = Tail(places.output, Budget(FILE_BUDGET_BYTES, budget))
            self._watch(places.output.parent, MODIFIED | CREATED | MOVED_IN)
        if places.job_directory and features.get("job_hooks", True):
            self._hooks = HookReports(places.job_directory)
            self._watch(places.job_directory, CLOSED_AFTER_WRITE | MOVED_IN)
        if places.diag_directory and features.get("diag_logs", True):
            self._diag = DiagFolder(
                places.diag_directory, self._started_at, budget, places.earlier_logs
            )
            self._watch(places.diag_directory, MODIFIED | CREATED | MOVED_IN)
        if places.perflog_directory and features.get("perflog", True):
            self._perf = PerfLog(
                places.perflog_directory, Budget(FILE_BUDGET_BYTES, budget)
            )
            self._watch(places.perflog_directory, MODIFIED | CREATED | MOVED_IN)

    def open(self) -> None:
        """Ask the kernel to be woken; without it, `needs_polling` stays true."""
        try:
            self._inotify = Inotify()
            for path, mask in self._watched.items():
                self._inotify.watch(path, mask)
        except OSError as error:
            log.warning("no inotify, signs of a job are polled for: %s", error)
            return
        self.needs_polling = False

    def fileno(self) -> int | None:
        """What becomes readable when there may be signs; None: only polling helps."""
        return self._inotify.fileno() if self._inotify else None

    @property
    def behind(self) -> bool:
        """Whether the last `read` was not enough to see all there is."""
        sources = (self._tail, self._diag, self._perf)
        return any(source.behind for source in sources if source)

    @property
    def reads_logs(self) -> bool:
        """Whether a sign that the runner's logs do not show has not happened."""
        return self._diag is not None and self._diag.is_readable

    def read(self) -> list[Sign]:
        """The signs since the last call, a bounded amount; see `behind`.

        The output is read before the other sources and told after them: what was
        logged before a result was printed is told before that result.
        """
        if self._inotify:
            self._inotify.drain()
        seen = self._clock()
        printed = self._tail.read(seen) if self._tail else []
        return [self._date(sign, seen) for sign in self._logged(seen) + printed]

    def finish(self) -> list[Sign]:
        """What is left when nobody writes any more; takes FINISH_SECONDS at most.

        Of files that are longer than what is read of one, only the end.
        """
        deadline = time.monotonic() + FINISH_SECONDS
        found = self.read()
        while self.behind and time.monotonic() < deadline:
            found += self.read()
        seen = self._clock()
        late = [
            *(self._diag.finish(seen) if self._diag else []),
            *(self._hooks.finish() if self._hooks else []),
            *(self._tail.finish(seen) if self._tail else []),
        ]
        return found + [self._date(sign, seen) for sign in late]

    def last_lines(self, count: int) -> list[str]:
        """The Listener's last words, without secrets."""
        return self._tail.last_lines(count) if self._tail else []

    def close(self) -> None:
        """Give every descriptor back."""
        for source in (self._tail, self._diag, self._perf, self._inotify):
            if source:
                source.close()
        self._inotify = None

    def _watch(self, path: Path, mask: int) -> None:
        self._watched[path] = self._watched.get(path, 0) | mask

    def _logged(self, seen: float) -> list[Sign]:
        return [
            *(self._perf.read() if self._perf else []),
            *(self._diag.read(seen) if self._diag else []),
            *(self._hooks.read() if self._hooks else []),
        ]

    def _date(self, sign: Sign, seen: float) -> Sign:
        """The sign at the time it most likely happened, never outside the run."""
        fresh = 0 <= seen - sign.at < _FRESH_SECONDS
        within = min(max(sign.at, self._started_at()), seen)
        return replace(sign, at=seen if fresh else within)
