"""The runner-watcher with a fake queue, a fake runner and a fake clock."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from miglet.messages.facts import (
    JobEnded,
    JobSeen,
    ListenerDied,
    RegistrationFailed,
    RunnerExited,
    RunnerFailing,
    RunnerLaunched,
    RunnerListening,
    RunnerRemoved,
)
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner, WatchRunner
from miglet.runner.run import RunnerPresent
from miglet.workers import registration, runner_watcher, steps
from miglet.workers.runner_watcher import RunnerWatcher
from tests.job.test_observer import FAILURE, FakeRun, FakeWorker, append, stamped
from tests.sample_settings import sample_settings
from tests.workers.fakes import IDENTITY, FakeClient, FakeClock, start

GRACE, SETTLE = 30.0, 5.0


class FakeLauncher:
    """Finds the run that the test has put there."""

    def __init__(self):
        self.run: FakeRun | None = None

    def find(self):
        return self.run


class Watcher:
    """A runner-watcher in a folder of its own, after its fork."""

    def __init__(self, root: Path):
        self.root = root
        self.clock = FakeClock()
        self.launcher = FakeLauncher()
        self.client = FakeClient(removal_token=[None])
        settings = sample_settings(
            {
                "runner": {
                    "directory": str(root / "runner"),
                    "user": None,
                    "drain_settle": SETTLE,
                    "ready_timeout": 60.0,
                    "ghost_timeout": 120.0,
                },
                "shutdown": {"grace_period": GRACE},
                "paths": {"state": str(root / "state"), "runtime": str(root)},
            }
        )
        self.worker = RunnerWatcher(
            settings, IDENTITY, self.client, self.launcher, self.clock
        )
        self.heard: set[int] = set()
        self.worker.listen = lambda source, heed: self.heard.add(source)
        self.worker.ignore = self.heard.discard
        self.queue = start(self.worker)
        self.facts: list = []

    def runs(self, run_id: str = "run-1") -> FakeRun:
        """A run that the launcher finds."""
        self.launcher.run = FakeRun(self.root / run_id, run_id=run_id)
        return self.launcher.run

    def pass_time(self, seconds: float = 0.0, step: float = 0.5) -> None:
        """Let the worker work until that much time has passed."""
        until = self.clock.now + seconds
        while True:
            self.worker.work()
            self.facts += self.queue.take()
            if self.clock.now >= until:
                return
            self.clock.advance(min(step, until - self.clock.now))

    def of(self, kind: type) -> list:
        return [fact for fact in self.facts if isinstance(fact, kind)]


@pytest.fixture
def watcher(tmp_path):
    (tmp_path / "runner").mkdir()
    return Watcher(tmp_path)


def busy(watcher: Watcher) -> tuple[FakeRun, FakeWorker]:
    """The watcher has adopted a run in the middle of its job."""
    run = watcher.runs()
    append(run.output_path, stamped("Listening for Jobs"))
    append(run.output_path, stamped("Running job: build"))
    run.worker_process = FakeWorker()
    watcher.worker.watch(WatchRunner(run.run_id))
    watcher.pass_time()
    assert watcher.of(JobSeen)
    return run, run.worker_process


def test_a_run_that_lives_is_adopted_instead_of_a_registration(watcher):
    run = watcher.runs()
    append(run.output_path, stamped("Listening for Jobs"))
    watcher.worker.provide(ProvideRunner(run.name))
    watcher.pass_time(1.0)
    assert len(watcher.of(RunnerLaunched)) == 1
    assert len(watcher.of(RunnerListening)) == 1


def test_the_same_order_twice_is_obeyed_once(watcher):
    run = watcher.runs()
    for _ in range(2):
        watcher.worker.provide(ProvideRunner(run.name))
    watcher.pass_time(1.0)
    assert len(watcher.of(RunnerLaunched)) == 1


def test_a_run_that_is_not_there_any_more_has_ended(watcher):
    watcher.worker.watch(WatchRunner("run-7"))
    watcher.pass_time()
    (exited,) = watcher.of(RunnerExited)
    assert exited.run_id == "run-7"


def test_what_a_job_leaves_running_is_killed_with_the_end_of_its_runner(watcher):
    run, worker = busy(watcher)
    worker.end(102)
    watcher.pass_time()
    assert [fact.result for fact in watcher.of(JobEnded)] == ["failed"]
    assert run.kills == 0, "the Listener still lives"
    run.end(0)
    watcher.pass_time()
    assert run.kills == 1
    assert len(watcher.of(RunnerExited)) == 1
    assert not watcher.heard


def test_a_job_goes_on_when_its_listener_dies_and_nothing_of_it_is_killed(watcher):
    run, worker = busy(watcher)
    run.end(None, signal.SIGKILL)
    watcher.pass_time(600.0, step=10.0)
    assert len(watcher.of(ListenerDied)) == 1
    assert run.kills == 0
    assert not watcher.of(RunnerExited)
    worker.end(100)
    watcher.pass_time()
    assert [fact.result for fact in watcher.of(JobEnded)] == ["succeeded"]
    assert run.kills == 1


def test_a_drain_leaves_a_job_alone(watcher):
    run, _ = busy(watcher)
    watcher.worker.drain(DrainRunner())
    watcher.pass_time(SETTLE + GRACE)
    assert run.interrupts == 0


def test_a_drain_stops_an_idle_listener_after_it_has_settled(watcher):
    run = watcher.runs()
    watcher.worker.watch(WatchRunner(run.run_id))
    watcher.worker.drain(DrainRunner())
    watcher.pass_time(SETTLE - 1)
    assert run.interrupts == 0
    watcher.pass_time(2.0)
    assert run.interrupts == 1


def test_a_stop_is_the_cause_of_what_the_job_reports_then(watcher):
    run, worker = busy(watcher)
    watcher.worker.stop(StopRunner(cause="timeout"))
    watcher.pass_time(13.0)
    assert run.interrupts == 1
    worker.end(102)
    run.end(0)
    watcher.pass_time(1.0)
    (ended,) = watcher.of(JobEnded)
    assert (ended.result, ended.cause) == ("failed", "timeout")
    (removed,) = watcher.of(RunnerRemoved)
    assert removed.removal == "not_registered"


def test_what_does_not_end_within_the_grace_period_is_killed(watcher):
    run, worker = busy(watcher)
    watcher.worker.stop(StopRunner())
    watcher.pass_time(GRACE - 1)
    assert run.kills == 0
    run.on_kill = lambda: (worker.end(signal=9), run.end(None, 9))
    watcher.pass_time(2.0)
    (ended,) = watcher.of(JobEnded)
    assert (ended.result, ended.cause) == ("cancelled", "shutdown")
    assert watcher.of(RunnerRemoved)


def test_a_shorter_grace_period_of_the_order_wins(watcher):
    run, worker = busy(watcher)
    run.on_kill = lambda: (worker.end(signal=9), run.end(None, 9))
    watcher.worker.stop(StopRunner(grace_seconds=2.0))
    watcher.pass_time(3.0)
    assert run.kills


def test_a_worker_that_hangs_is_killed_and_the_job_reported_with_its_cause(watcher):
    run, worker = busy(watcher)
    log = run.diag_directory / run.log_name("Runner")
    append(log, "[2026-01-01 00:00:00Z INFO Listener] Version: 2.336.0\n")
    watcher.pass_time(121.0)
    assert [fact.code for fact in watcher.of(RunnerFailing)] == ["worker_stuck"]
    assert worker.signals == [signal.SIGKILL]
    worker.end(signal=9)
    append(run.output_path, stamped(FAILURE))
    watcher.pass_time()
    assert [fact.cause for fact in watcher.of(JobEnded)] == ["worker_stuck"]


def test_a_minimal_watch_reads_no_files_of_the_job(watcher):
    run = watcher.runs()
    append(run.output_path, stamped("Running job: build"))
    watcher.worker.watch(WatchRunner(run.run_id, minimal=True))
    watcher.pass_time(1.0)
    assert not watcher.of(JobSeen)
    run.end(0)
    watcher.pass_time()
    assert len(watcher.of(RunnerExited)) == 1


def test_a_listener_that_is_not_ready_in_time_is_killed(watcher, monkeypatch):
    run = watcher.runs()
    run.on_kill = lambda: run.end(None, 9)
    watcher.launcher.run = None

    class Registration(registration.RunnerRegistration):
        def run(self):
            yield 0.0
            return run

        def describe(self, run):
            return registration.describe(run)

    monkeypatch.setattr(runner_watcher, "RunnerRegistration", Registration)
    watcher.worker.provide(ProvideRunner(run.name))
    watcher.pass_time(59.0)
    assert run.kills == 0
    watcher.pass_time(5.0)
    assert run.kills
    assert len(watcher.of(RunnerExited)) == 1


def test_a_former_run_whose_worker_finishes_its_job_is_waited_for(watcher, monkeypatch):
    run, worker = busy(watcher)
    run.end(None, signal.SIGKILL)
    watcher.pass_time()
    begun = []

    class Registration(registration.RunnerRegistration):
        def run(self):
            begun.append(run.kills)
            yield 3600.0

    monkeypatch.setattr(runner_watcher, "RunnerRegistration", Registration)
    watcher.worker.provide(ProvideRunner("vm-1-2"))
    watcher.pass_time(SETTLE + GRACE + 60.0)
    assert not begun, "the Worker still works"
    worker.end(100)
    watcher.pass_time(1.0)
    assert begun
    assert [fact.result for fact in watcher.of(JobEnded)] == ["succeeded"]
    assert run.forgotten


def test_a_listener_that_cannot_be_killed_leaves_no_room_for_another(
    watcher, monkeypatch
):
    run = watcher.runs()

    def refuse() -> None:
        raise RunnerPresent("vm-1-1 (pid 7) still lives")

    monkeypatch.setattr(run, "forget", refuse)
    watcher.worker.provide(ProvideRunner("vm-1-2"))
    watcher.pass_time(SETTLE + GRACE + 60.0)
    (failed,) = watcher.of(RegistrationFailed)
    assert "still lives" in failed.message and failed.hint


def test_a_registration_that_is_given_up_is_reported(watcher, monkeypatch):
    fact = RegistrationFailed("permanent", "registration_refused", "403", "", 77)

    class Registration(registration.RunnerRegistration):
        def run(self):
            yield 0.0
            raise steps.GivenUp(fact)

    monkeypatch.setattr(runner_watcher, "RunnerRegistration", Registration)
    watcher.worker.provide(ProvideRunner("vm-1"))
    watcher.pass_time(1.0)
    assert watcher.of(RegistrationFailed) == [fact]
