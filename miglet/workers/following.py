"""The one run that the runner-watcher follows: looked at, ended, buried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from miglet.config.settings import Settings
from miglet.job.observer import FINISH_SECONDS, Limits, RunObserver
from miglet.messages.codec import Fact
from miglet.messages.facts import JobSeen
from miglet.runner.release import FolderRecord
from miglet.runner.run import Run
from miglet.supervisor.failpoints import reach
from miglet.workers.registration import description
from miglet.workers.steps import Steps

#: Seconds that killing a whole tree of processes may take.
KILL_SECONDS = 5.0

#: Seconds between two looks while something is about to end.
CLOSE_LOOK_SECONDS = 0.02


class Watcher(Protocol):
    """What following needs of the runner-watcher."""

    settings: Settings
    folder: FolderRecord

    def report(self, fact: Fact) -> None:
        """Tell the arbiter."""

    def be_patient(self, seconds: float) -> None:
        """Say that the next step may take so long."""

    def listen(self, source: Any, heed: Callable[[], None]) -> None:
        """Call `heed` whenever `source` is readable."""

    def ignore(self, source: Any) -> None:
        """Undo `listen`."""

    def hurry(self) -> None:
        """Let `work` come at once."""


class Following:
    """Has at most one run in view; nothing of it is told twice."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._watch: RunObserver | None = None
        self._descriptors: set[int] = set()

    @property
    def watch(self) -> RunObserver | None:
        """The run in view, as long as it has not ended."""
        if self._watch and not self._watch.ended:
            return self._watch
        return None

    def is_of(self, run_id: str) -> bool:
        """Whether this is the run in view, ended or not."""
        return self._watch is not None and self._watch.run.run_id == run_id

    def begin(
        self,
        run: Run,
        adopted: bool,
        told: dict[str, Any] | None = None,
        minimal: bool = False,
    ) -> None:
        """Look at this run from now on; `told` is what the facts say of the runner."""
        self.forget()
        settings = self._watcher.settings
        self._watch = RunObserver(
            run,
            told or description(run),
            settings.features.as_dict(),
            limits_of(settings),
            adopted,
            minimal,
        )
        self._listen(self._watch.descriptors())
        self._watcher.hurry()

    def apply(self, settings: Settings) -> None:
        """Changed settings hold for the run in view, too."""
        if self._watch:
            self._watch.limits = limits_of(settings)

    def forget(self) -> None:
        """Look no more."""
        self._listen(set())
        if self._watch:
            self._watch.close()
        self._watch = None

    def look(self) -> None:
        """Report what is new.

        When nothing of the runner is left, what its job left running is killed before
        the last is read: nobody can then write while it is read.
        """
        watch = self.watch
        if watch is None:
            return
        self._report(watch.look(time.monotonic()))
        if watch.over:
            self._listen(set())
            self._watcher.be_patient(KILL_SECONDS + FINISH_SECONDS)
            watch.run.kill(KILL_SECONDS)
            self._report(watch.finish())
            watch.close()
        else:
            self._listen(watch.descriptors())

    def _report(self, facts: Iterator[Fact]) -> None:
        for fact in facts:
            reach(f"watcher.saw.{type(fact).__name__}")
            if isinstance(fact, JobSeen):
                self._watcher.folder.note_job()
            self._watcher.report(fact)
            reach(f"watcher.told.{type(fact).__name__}")

    def due_in(self) -> float:
        """Seconds until the next look."""
        return self.watch.due_in() if self.watch else 1.0

    def kill(self) -> None:
        """End the run and everything it started, now."""
        if self.watch:
            self._watcher.be_patient(KILL_SECONDS)
            self.watch.run.kill(KILL_SECONDS)
            self.look()

    def awaited(self, seconds: float) -> Steps:
        """Wait for the run to end by itself."""
        deadline = time.monotonic() + seconds
        while self.watch and time.monotonic() < deadline:
            yield CLOSE_LOOK_SECONDS

    def interrupted(
        self, grace_seconds: float | None = None, cause: str = "shutdown"
    ) -> Steps:
        """Ask the runner to end, wait for the grace period, then SIGKILL for all."""
        if self.watch:
            self.watch.stop(cause)
        configured = self._watcher.settings.shutdown.grace_period
        yield from self.awaited(configured if grace_seconds is None else grace_seconds)
        self.kill()

    def _listen(self, wanted: set[int]) -> None:
        """Be woken by these descriptors and no others."""
        for descriptor in self._descriptors - wanted:
            self._watcher.ignore(descriptor)
        for descriptor in wanted - self._descriptors:
            self._watcher.listen(descriptor, self._watcher.hurry)
        self._descriptors = wanted


def limits_of(settings: Settings) -> Limits:
    """How long a runner may be stuck."""
    return Limits(settings.runner.ghost_timeout, settings.runner.finish_timeout)
