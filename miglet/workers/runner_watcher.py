"""Provides, observes and ends the runner; the only worker that touches it.

What takes time is written as steps that yield: between two of them the worker handles
orders, sends its liveness pings and looks at the run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from miglet.config.settings import Settings
from miglet.controller.client import Client
from miglet.job.evidence import Evidence
from miglet.job.observer import (
    CLOSE_LOOK_SECONDS,
    FINISH_SECONDS,
    Limits,
    RunObserver,
)
from miglet.job.verdict import RunnerExit
from miglet.messages.codec import Fact
from miglet.messages.events import Identity
from miglet.messages.facts import (
    CALL_FACTS,
    RUN_FACTS,
    JobSeen,
    RegistrationFailed,
    RunnerExited,
    RunnerLaunched,
    RunnerRemoved,
    TokenSpent,
)
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner, WatchRunner
from miglet.runner.folder_record import FolderRecord
from miglet.runner.launcher import Launcher, runner_launcher
from miglet.runner.run import Run, RunnerPresent
from miglet.supervisor.failpoints import reach
from miglet.workers.base import LIVENESS_MARGIN, Worker
from miglet.workers.registration import (
    RegistrationRemoval,
    RunnerRegistration,
    describe,
    hooks_report,
)
from miglet.workers.steps import GivenUp, Steps, failure_of

#: Seconds that killing a whole tree of processes may take.
KILL_SECONDS = 5.0


class RunnerWatcher(Worker):
    """Watches at most one run, and performs one task after the other."""

    name = "runner-watcher"
    facts = (
        CALL_FACTS
        | RUN_FACTS
        | {TokenSpent, RunnerLaunched, RegistrationFailed, RunnerRemoved}
    )
    user = ""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        client: Client | None = None,
        launcher: Launcher | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(settings, identity)
        self.client = client or Client(settings.controller, identity.vm_id)
        self.folder = FolderRecord(
            Path(settings.paths.state), Path(settings.runner.directory)
        )
        self.now = now
        self._launcher = launcher or runner_launcher(settings)
        self._observed = ObservedRun(self)
        #: What the last ProvideRunner asked for: the name, and the run before it.
        self._provision = ("", "")
        self._tasks: deque[Steps] = deque()
        self._task_due = 0.0

    def close(self) -> None:
        """The runner goes on without us."""
        self.client.close()

    def changed(self, before: Settings) -> None:
        """Apply the new settings to the client and to the observed run."""
        self.client.apply(self.settings.controller)
        self._observed.apply(self.settings)

    def work(self) -> None:
        """Look at the run, then go on with the task under way."""
        self._observed.look()
        self._advance()
        dues = [1.0, self._observed.due_in()]
        if self._tasks:
            dues.append(self._task_due - self.now())
        self.period = max(0.0, min(dues))

    def extend_liveness(self, seconds: float) -> None:
        """Extend the liveness timeout: the next step may take so long."""
        self.ping(seconds + LIVENESS_MARGIN)

    def wake(self) -> None:
        """Have the task under way continue at once."""
        self._task_due = 0.0
        self.work_soon()

    # Orders.

    def provide(self, order: ProvideRunner) -> None:
        """Have a runner of this name listen; a repeated order is ignored.

        A new watcher may get it twice: as a standing order, and when it is given.
        """
        provision = order.name, order.former_run
        if provision != self._provision:
            self._provision = provision
            self._begin(self._provide(order))

    def watch(self, order: WatchRunner) -> None:
        """Go on observing a run that was launched before."""
        if self._observed.is_of(order.run_id):
            return
        run = self._launcher.find()
        if run is None or run.run_id != order.run_id:
            self.report(end_of_vanished_run(order.run_id))
            return
        self._observed.begin(run, adopted=True, minimal=order.minimal)

    def drain(self, order: DrainRunner) -> None:
        """Stop an idle listener; leave a busy one alone."""
        self._begin(self._drain())

    def stop(self, order: StopRunner) -> None:
        """Cancel all tasks and stop the runner."""
        for task in self._tasks:
            task.close()
        self._tasks.clear()
        self._begin(self._stop_runner(order))

    orders = {
        ProvideRunner: provide,
        WatchRunner: watch,
        DrainRunner: drain,
        StopRunner: stop,
    }

    # Tasks.

    def _begin(self, task: Steps) -> None:
        self._tasks.append(task)
        self.wake()

    def _advance(self) -> None:
        """Take the next step of the task under way, if it is due."""
        if not self._tasks or self.now() < self._task_due:
            return
        try:
            self._task_due = self.now() + next(self._tasks[0])
        except StopIteration:
            self._tasks.popleft()
            self._task_due = 0.0
        except GivenUp as error:
            self._tasks.popleft()
            self.report(error.fact)

    def _provide(self, order: ProvideRunner) -> Steps:
        run = self._launcher.find()
        if run and run.name == order.name and _is_wanted(run, order.former_run):
            self.report(RunnerLaunched(describe(run)))
            self._observed.begin(run, adopted=True)
            return
        if run:
            yield from self._end_former_run(run, order.instead_of)
        yield order.delay_seconds
        registration = RunnerRegistration(self, order)
        run = yield from registration.run()
        described = registration.describe(run)
        self._observed.begin(run, adopted=False, described=described)
        yield from self._await_listening()

    def _end_former_run(self, run: Run, instead_of: str) -> Steps:
        """End a former run and remove its record: what it did is in the journal.

        A Worker that outlived its Listener finishes its job first. Raises GivenUp if
        it cannot be killed: another runner must not be started beside it.
        """
        if not self._observed.is_of(run.run_id):
            self._observed.begin(run, adopted=True)
        if run.run_id != instead_of:
            yield from self._observed.wait(self.settings.runner.drain_settle)
            if run.orphaned():
                yield from self._observed.wait(self.settings.runner.orphan_timeout)
        yield from self._observed.stop()
        self._observed.forget()
        try:
            run.forget()
        except RunnerPresent as error:
            raise GivenUp(failure_of(error)) from error

    def _await_listening(self) -> Steps:
        """Kill a Listener that is not ready in time."""
        deadline = self.now() + self.settings.runner.ready_timeout
        while (present := self._observed.present) and not present.listening:
            if self.now() >= deadline:
                self._observed.kill()
                return
            yield 1.0

    def _drain(self) -> Steps:
        """Stop the runner unless a job that was already assigned appears in time."""
        settle = self.now() + self.settings.runner.drain_settle
        while present := self._observed.present:
            if present.busy:
                return
            if self.now() >= settle:
                yield from self._observed.stop()
                return
            yield CLOSE_LOOK_SECONDS

    def _stop_runner(self, order: StopRunner) -> Steps:
        run = None if self._observed.present else self._launcher.find()
        if run and (run.alive() or run.orphaned()):
            # Launched by a watcher that died before it could say so.
            self._observed.begin(run, adopted=True)
        yield from self._observed.wait(order.settle_seconds)
        yield from self._observed.stop(order.grace_seconds, order.cause)
        removal, detail = yield from RegistrationRemoval(self).run()
        self.report(RunnerRemoved(detail, removal))


def _is_wanted(run: Run, former_run: str) -> bool:
    """Whether the arbiter needs this run: it lives, or its end was not reported."""
    return run.alive() or not (run.run_id == former_run or run.reported)


def end_of_vanished_run(run_id: str) -> RunnerExited:
    """The end of a run of which nothing is left."""
    return RunnerExited(
        run_id=run_id,
        evidence=Evidence().as_json(),
        runner_exit=RunnerExit().as_json(),
        usage={},
        last_lines=[],
    )


class ObservedRun:
    """The one run that is observed, if any; nothing of it is reported twice."""

    def __init__(self, watcher: RunnerWatcher) -> None:
        self._watcher = watcher
        self._observer: RunObserver | None = None
        self._descriptors: set[int] = set()

    @property
    def present(self) -> RunObserver | None:
        """The observer of the run, as long as the run has not ended."""
        if self._observer and not self._observer.ended:
            return self._observer
        return None

    def is_of(self, run_id: str) -> bool:
        """Whether this run is observed, or was until its end."""
        return self._observer is not None and self._observer.run.run_id == run_id

    def begin(
        self,
        run: Run,
        adopted: bool,
        described: dict[str, Any] | None = None,
        minimal: bool = False,
    ) -> None:
        """Observe this run; `described` is the runner as facts describe it."""
        self.forget()
        settings = self._watcher.settings
        self._observer = RunObserver(
            run,
            described or describe(run),
            settings.features.as_dict(),
            limits_of(settings),
            adopted,
            hooks_report(settings),
            minimal,
        )
        self._listen(self._observer.descriptors())
        self._watcher.work_soon()

    def apply(self, settings: Settings) -> None:
        """Apply changed settings to the observed run."""
        if self._observer:
            self._observer.limits = limits_of(settings)

    def forget(self) -> None:
        """Stop observing, if a run is observed."""
        self._listen(set())
        if self._observer:
            self._observer.close()
        self._observer = None

    def look(self) -> None:
        """Report what is new.

        When Listener and Worker are gone, what the job left running is killed before
        the files are read to their ends: nobody writes to them any more.
        """
        present = self.present
        if present is None:
            return
        self._report(present.look(self._watcher.now()))
        if present.over:
            self._listen(set())
            self._watcher.extend_liveness(KILL_SECONDS + FINISH_SECONDS)
            present.run.kill(KILL_SECONDS)
            self._report(present.finish())
            present.close()
        else:
            self._listen(present.descriptors())

    def due_in(self) -> float:
        """Seconds until the next look."""
        return self.present.due_in() if self.present else 1.0

    def kill(self) -> None:
        """End the run and everything it started, now."""
        if self.present:
            self._watcher.extend_liveness(KILL_SECONDS)
            self.present.run.kill(KILL_SECONDS)
            self.look()

    def wait(self, seconds: float) -> Steps:
        """Wait for the run to end by itself."""
        deadline = self._watcher.now() + seconds
        while self.present and self._watcher.now() < deadline:
            yield CLOSE_LOOK_SECONDS

    def stop(
        self, grace_seconds: float | None = None, cause: str = "shutdown"
    ) -> Steps:
        """Ask the runner to end, wait for the grace period, then kill all of it."""
        if self.present:
            self.present.stop(cause)
        configured = self._watcher.settings.shutdown.grace_period
        yield from self.wait(configured if grace_seconds is None else grace_seconds)
        self.kill()

    def _report(self, facts: Iterator[Fact]) -> None:
        for fact in facts:
            reach(f"watcher.saw.{type(fact).__name__}")
            if isinstance(fact, JobSeen):
                self._watcher.folder.note_job()
            self._watcher.report(fact)
            reach(f"watcher.reported.{type(fact).__name__}")

    def _listen(self, wanted: set[int]) -> None:
        """Wake the worker for these descriptors and no others."""
        for descriptor in self._descriptors - wanted:
            self._watcher.ignore(descriptor)
        for descriptor in wanted - self._descriptors:
            self._watcher.listen(descriptor, self._watcher.work_soon)
        self._descriptors = wanted


def limits_of(settings: Settings) -> Limits:
    """The observer's limits by these settings."""
    return Limits(settings.runner.ghost_timeout, settings.runner.finish_timeout)
