"""Provides, watches and ends the runner; the only worker that touches it.

What takes time is written as steps that yield: between two of them the worker hears
orders, shows its pulse and looks at the run.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from miglet.config.settings import Settings
from miglet.controller.client import Client
from miglet.job.evidence import Evidence
from miglet.job.verdict import Ending
from miglet.messages.events import Identity
from miglet.messages.facts import (
    ControllerAnswered,
    ControllerFailed,
    FaultNoted,
    JobEnded,
    JobIdentified,
    JobResultSeen,
    JobSampled,
    JobSeen,
    ListenerDied,
    RegistrationFailed,
    RunnerExited,
    RunnerLaunched,
    RunnerListening,
    RunnerRemoved,
    RunnerTroubled,
    TokenSpent,
)
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner, WatchRunner
from miglet.runner.launchers import runner_launcher
from miglet.runner.release import FolderRecord
from miglet.runner.run import Run
from miglet.workers.base import SILENCE_MARGIN, Worker
from miglet.workers.following import CLOSE_LOOK_SECONDS, Following
from miglet.workers.registration import Registering, Removing, description
from miglet.workers.steps import Hopeless, Steps


class RunnerWatcher(Worker):
    """Has at most one run to watch, and a queue of tasks of which one is under way."""

    name = "runner-watcher"
    facts = frozenset(
        {
            ControllerAnswered,
            ControllerFailed,
            FaultNoted,
            JobEnded,
            JobIdentified,
            JobResultSeen,
            JobSampled,
            JobSeen,
            ListenerDied,
            RegistrationFailed,
            RunnerExited,
            RunnerLaunched,
            RunnerListening,
            RunnerRemoved,
            RunnerTroubled,
            TokenSpent,
        }
    )
    privileged = True

    def __init__(self, settings: Settings, identity: Identity) -> None:
        super().__init__(settings, identity)
        self.client = Client(settings.controller, identity.vm_id)
        self.folder = FolderRecord(
            Path(settings.paths.state), Path(settings.runner.directory)
        )
        self._launcher = runner_launcher(settings)
        self._following = Following(self)
        #: What was last to be provided: the name, and the run that it comes after.
        self._provision = ("", "")
        self._tasks: deque[Steps] = deque()
        self._task_due = 0.0

    def close(self) -> None:
        """The runner goes on without us."""
        self.client.close()

    def changed(self, before: Settings) -> None:
        """Calls that follow are made, and the run is watched, with the new settings."""
        self.client.apply(self.settings.controller)
        self._following.apply(self.settings)

    def work(self) -> None:
        """Look at the run, then go on with what is under way."""
        self._following.look()
        self._advance()
        dues = [1.0, self._following.due_in()]
        if self._tasks:
            dues.append(self._task_due - time.monotonic())
        self.period = max(0.0, min(dues))

    def be_patient(self, seconds: float) -> None:
        """The next step may take so long."""
        self.pulse(seconds + SILENCE_MARGIN)

    def wake(self) -> None:
        """Let the task under way go on at once."""
        self._task_due = 0.0
        self.hurry()

    # Orders.

    def provide(self, order: ProvideRunner) -> None:
        """See that a runner of this name listens; what is asked for twice is done once.

        A new watcher may hear of it before it is welcomed, and then again.
        """
        provision = order.name, order.former_run
        if provision != self._provision:
            self._provision = provision
            self._begin(self._provided(order))

    def watch(self, order: WatchRunner) -> None:
        """Go on watching a run that was launched before."""
        if self._following.is_of(order.run_id):
            return
        run = self._launcher.find()
        if run is None or run.run_id != order.run_id:
            self.report(vanished(order.run_id))
            return
        self._following.begin(run, adopted=True, minimal=order.minimal)

    def drain(self, order: DrainRunner) -> None:
        """Stop an idle listener; leave a busy one alone."""
        self._begin(self._drained())

    def stop(self, order: StopRunner) -> None:
        """Drop what is under way and end the runner."""
        for task in self._tasks:
            task.close()
        self._tasks.clear()
        self._begin(self._stopped(order))

    orders = {
        ProvideRunner: provide,
        WatchRunner: watch,
        DrainRunner: drain,
        StopRunner: stop,
    }

    # Tasks.

    def _begin(self, task: Steps) -> None:
        self._tasks.append(task)
        self._task_due = 0.0
        self.hurry()

    def _advance(self) -> None:
        """Take the next step of the task under way, if it is due."""
        if not self._tasks or time.monotonic() < self._task_due:
            return
        try:
            self._task_due = time.monotonic() + next(self._tasks[0])
        except StopIteration:
            self._tasks.popleft()
            self._task_due = 0.0
        except Hopeless as error:
            self._tasks.popleft()
            self.report(error.fact)

    def _provided(self, order: ProvideRunner) -> Steps:
        run = self._launcher.find()
        if run and run.name == order.name and _is_wanted(run, order.former_run):
            self.report(RunnerLaunched(description(run)))
            self._following.begin(run, adopted=True)
            return
        if run:
            yield from self._over_and_done(run, order.instead_of)
        yield order.delay_seconds
        registering = Registering(self, order)
        run = yield from registering.run()
        self._following.begin(run, adopted=False, told=registering.described(run))
        yield from self._ready()

    def _over_and_done(self, run: Run, instead_of: str) -> Steps:
        """See a former run end, and forget it: what it told is in the journal."""
        if not self._following.is_of(run.run_id):
            self._following.begin(run, adopted=True)
        if run.run_id != instead_of:
            yield from self._following.awaited(self.settings.runner.drain_settle)
        yield from self._following.interrupted()
        self._following.forget()
        run.forget()

    def _ready(self) -> Steps:
        """A listener that does not listen in time is of no use."""
        deadline = time.monotonic() + self.settings.runner.ready_timeout
        while (watch := self._following.watch) and not watch.listening:
            if time.monotonic() >= deadline:
                self._following.kill()
                return
            yield 1.0

    def _drained(self) -> Steps:
        """Give a job that was already assigned the time to show itself."""
        settle = time.monotonic() + self.settings.runner.drain_settle
        while watch := self._following.watch:
            if watch.busy:
                return
            if time.monotonic() >= settle:
                yield from self._following.interrupted()
                return
            yield CLOSE_LOOK_SECONDS

    def _stopped(self, order: StopRunner) -> Steps:
        run = None if self._following.watch else self._launcher.find()
        if run and (run.alive() or run.orphaned()):
            # Launched by a watcher that died before it could say so.
            self._following.begin(run, adopted=True)
        yield from self._following.awaited(order.settle_seconds)
        yield from self._following.interrupted(order.grace_seconds, order.cause)
        detail = yield from Removing(self).run()
        self.report(RunnerRemoved(detail))


def _is_wanted(run: Run, former_run: str) -> bool:
    """Whether the arbiter is to hear of this run: it lives, or nobody told of it."""
    return run.alive() or not (run.run_id == former_run or run.settled)


def vanished(run_id: str) -> RunnerExited:
    """The end of a run of which nothing is left."""
    return RunnerExited(
        run_id=run_id,
        evidence=Evidence().as_json(),
        ending=Ending().as_json(),
        usage={},
        last_lines=[],
    )
