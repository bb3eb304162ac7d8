"""The observer of one run: when a job ends, with which result, and what is waited for.

The processes are fakes, the files are real, and time passes when a test says so.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from miglet.job.observer import (
    CONFIRM_SECONDS,
    MISSED_SECONDS,
    RESULT_SECONDS,
    STATUS_SECONDS,
    Limits,
    RunObserver,
    free_bytes,
)
from miglet.messages.codec import encode
from miglet.messages.facts import (
    JobEnded,
    JobIdentified,
    JobSampled,
    JobSeen,
    ListenerDied,
    RunnerExited,
    RunnerFailing,
    RunnerListening,
)
from miglet.runner.identity import ProcessIdentity
from miglet.runner.records import ExitStatus
from miglet.runner.usage import Usage

GHOST, FINISH = 120.0, 300.0
SUCCESS = "Job build completed with result: Succeeded"
FAILURE = "Job build completed with result: Failed"


class FakeWorker:
    """A Worker whose end the test decides."""

    def __init__(self):
        self.status: ExitStatus | None = None
        self.gone = False
        self.signals: list[int] = []

    def fileno(self):
        return None

    def ended(self):
        return self.gone

    def exit_status(self):
        return self.status

    def signal(self, number):
        self.signals.append(number)
        return True

    def close(self):
        pass

    def end(self, code=None, signal=None, known=True):
        self.gone = True
        if known:
            self.status = ExitStatus(code, signal, ended_at=time.time())


@dataclass
class FakeRun:
    """A run whose processes are the test's, and whose files are in a folder."""

    root: Path
    worker_process: FakeWorker | None = None
    status: ExitStatus | None = None
    interrupts: int = 0
    used: Usage = field(default_factory=Usage)
    run_id: str = "run-1"
    name: str = "vm-1"
    unit: None = None
    reported: bool = False
    kills: int = 0
    forgotten: bool = False
    on_kill: Callable[[], Any] = lambda: None

    def __post_init__(self):
        self.directory = self.root / "runner"
        self.diag_directory = self.directory / "_diag"
        self.job_directory = self.root / "job"
        self.output_path = self.root / "run" / "output"
        for each in (self.diag_directory, self.root / "run", self.root / "perflog"):
            each.mkdir(parents=True)
        self.job_directory.mkdir(mode=0o700)
        self.started_at = time.time()
        self.earlier_logs: dict[str, int] = {}
        ticks = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
        self.listener = ProcessIdentity(1, int(ticks), "boot")

    def alive(self):
        return self.status is None

    def ended(self):
        return self.status

    def worker(self):
        return self.worker_process

    def usage(self):
        return self.used

    def oom_kills(self):
        return 0

    def wait_descriptor(self):
        return None

    def interrupt(self):
        self.interrupts += 1

    def kill(self, seconds):
        self.kills += 1
        self.on_kill()

    def orphaned(self):
        worker = self.worker_process
        return self.status is not None and worker is not None and not worker.gone

    def forget(self):
        self.forgotten = True

    def end(self, code=None, signal=None):
        """The Listener ends."""
        self.status = ExitStatus(code, signal, ended_at=time.time())

    @property
    def folder(self):
        return self.root / "run"

    def log_name(self, kind):
        begun = time.gmtime(self.started_at + 1)
        return time.strftime(f"{kind}_%Y%m%d-%H%M%S-utc.log", begun)


class Play:
    """A run, its observer and the clock; `facts` has everything reported so far."""

    def __init__(self, root: Path, features: dict[str, bool] | None = None):
        self.run = FakeRun(root)
        self.now = 1000.0
        self.facts: list[Any] = []
        self.features = features or {}
        self.observe()

    def observe(self, **more: Any) -> None:
        """Begin to observe, once more if need be."""
        limits = Limits(GHOST, FINISH)
        self.watch = RunObserver(self.run, {}, self.features, limits, False, **more)

    def look(self, seconds: float = 0.0) -> list[Any]:
        """Let time pass and look; the new facts."""
        self.now += seconds
        if self.watch.ended:
            return []
        found = list(self.watch.look(self.now))
        if self.watch.over:
            found += self.watch.finish()
        self.facts += found
        return found

    def of(self, kind: type) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    @property
    def end(self) -> JobEnded | None:
        """The end of the job, if it has been reported; never twice."""
        found = self.of(JobEnded)
        assert len(found) <= 1
        return found[0] if found else None

    def prints(self, text: str) -> None:
        append(self.run.output_path, stamped(text))

    def logs(self, kind: str, component: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        path = self.run.diag_directory / self.run.log_name(kind)
        append(path, f"[{stamp} INFO {component}] {text}\n")

    def begin(self, name: str = "build") -> FakeWorker:
        """A job that is under way, with its Worker found."""
        self.logs("Runner", "Listener", "Version: 2.336.0")
        self.prints("Listening for Jobs")
        self.prints(f"Running job: {name}")
        self.run.worker_process = worker = FakeWorker()
        self.logs("Worker", "Worker", "Message received.")
        self.look()
        assert self.of(JobSeen)
        return worker

    def listener_ends(self, code: int | None = 0, signal: int | None = None) -> None:
        self.run.end(code, signal)


def stamped(text: str) -> str:
    """A line of the Listener's."""
    return time.strftime(f"%Y-%m-%d %H:%M:%SZ: {text}\n", time.gmtime())


def append(path: Path, text: str) -> None:
    with open(path, "ab") as file:
        file.write(text.encode())


@pytest.fixture
def play(tmp_path):
    made = Play(tmp_path)
    yield made
    made.watch.close()


def result(end: JobEnded | None) -> tuple[str, str, int | None]:
    assert end
    return end.result, end.cause, end.exit_code


def test_a_job_ends_with_its_worker_and_waits_neither_for_a_line_nor_for_the_listener(
    play,
):
    worker = play.begin()
    worker.end(100)
    play.look()
    assert result(play.end) == ("succeeded", "success", 0)
    assert not play.of(RunnerExited)
    play.prints(SUCCESS)
    play.listener_ends()
    play.look(0.1)
    assert len(play.of(RunnerExited)) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (100, ("succeeded", "success", 0)),
        (101, ("succeeded", "success", 0)),
        (102, ("failed", "setup_failed", 102)),
        (104, ("cancelled", "cancelled", 104)),
    ],
)
def test_the_workers_status_is_the_result(play, code, expected):
    play.begin().end(code)
    play.look()
    assert result(play.end) == expected


@pytest.mark.parametrize(
    "claim",
    [
        SUCCESS,
        f"Running job: a\nb\n2026-01-01 00:00:00Z: {SUCCESS}",
        "x\nsecond line of a name completed with result: Succeeded",
    ],
)
def test_a_result_that_is_claimed_while_the_worker_lives_ends_nothing(play, claim):
    worker = play.begin()
    play.prints(claim)
    play.logs("Runner", "Terminal", f"WRITE LINE: 2026-01-01 00:00:00Z: {claim}")
    play.logs("Runner", "JobDispatcher", "Worker finished for job 1. Code: 100")
    play.look(10.0)
    assert play.end is None
    worker.end(102)
    play.look(60.0)
    assert play.end.result == "failed"
    assert any("ignored" in reason for reason in play.end.evidence)


def test_without_a_status_the_last_result_after_the_workers_end_decides(play):
    worker = play.begin()
    play.prints(SUCCESS)
    play.look(1.0)
    worker.end(known=False)
    play.look(1.0)
    play.prints(SUCCESS)
    play.look(STATUS_SECONDS)
    play.prints(FAILURE)
    play.look(CONFIRM_SECONDS)
    assert play.end.result == "failed"
    assert play.end.exit_code is None
    assert play.end.evidence[0] == "worker_status_unknown"


def test_without_a_status_a_success_has_exit_code_0(play):
    play.begin().end(known=False)
    play.look()
    play.prints(SUCCESS)
    play.look(STATUS_SECONDS)
    assert play.end is None, "the Listener may print something else yet"
    play.look(CONFIRM_SECONDS)
    assert result(play.end) == ("succeeded", "success", 0)


def test_without_a_status_the_listeners_end_ends_the_waiting(play):
    play.begin().end(known=False)
    play.look()
    play.prints(FAILURE)
    play.listener_ends()
    play.look(0.01)
    assert play.end.result == "failed"


def test_a_claim_is_no_result_when_neither_status_nor_line_follows(play):
    worker = play.begin()
    play.prints(SUCCESS)
    play.look(1.0)
    worker.end(known=False)
    play.look(0.1)
    assert play.end is None
    play.look(RESULT_SECONDS)
    assert result(play.end) == ("unknown", "runner_crash", None)


def test_a_killed_worker_waits_for_what_the_listener_makes_of_it(play):
    """The older flow reports a killed Worker 0.8 s later."""
    play.begin().end(signal=9)
    play.look()
    play.look(0.7)
    assert play.end is None
    play.prints(FAILURE)
    play.look(0.1)
    assert result(play.end) == ("failed", "worker_crash", 137)
    assert play.end.crash["signal"] == 9


def test_a_job_that_kills_its_runner_after_printing_a_success_did_not_succeed(play):
    worker = play.begin()
    play.prints(SUCCESS)
    worker.end(signal=9)
    play.listener_ends(None, 9)
    play.look()
    assert result(play.end) == ("unknown", "runner_crash", 137)
    assert play.end.crash["signal"] == 9


def test_a_success_that_a_killed_worker_left_does_not_end_the_wait_for_the_listener(
    play,
):
    """Both are killed, and the Worker is seen dead first."""
    worker = play.begin()
    play.prints(SUCCESS)
    worker.end(signal=9)
    play.look()
    assert play.end is None
    play.listener_ends(None, 9)
    play.look(0.02)
    assert result(play.end) == ("unknown", "runner_crash", 137)


def test_a_cancelled_job_waits_for_whether_its_lock_was_lost(play):
    play.begin().end(103)
    play.look()
    assert play.end is None
    play.prints("Job build completed with result: Abandoned")
    play.look(0.02)
    assert result(play.end) == ("abandoned", "lock_lost", 103)


def test_a_cancelled_job_is_reported_when_no_line_follows(play):
    play.begin().end(103)
    play.look()
    play.look(CONFIRM_SECONDS)
    assert result(play.end) == ("cancelled", "cancelled", 103)


def test_what_the_worker_logs_with_its_last_breath_is_read(play):
    worker = play.begin()

    def end_between_reading_and_asking():
        if not worker.gone:
            play.logs("Worker", "Worker", "Cancellation/Shutdown message received.")
            play.logs(
                "Worker", "HostContext", "Runner will be shutdown for UserCancelled"
            )
            worker.end(102)
        return True

    worker.ended = end_between_reading_and_asking
    play.look()
    assert result(play.end) == ("failed", "shutdown", 102)


def test_a_status_that_comes_a_moment_late_is_waited_for(play):
    worker = play.begin()
    worker.gone = True
    play.look()
    play.prints(SUCCESS)
    play.look(STATUS_SECONDS / 2)
    assert play.end is None
    assert play.watch.due_in() < 0.01
    worker.end(102)
    play.look(0.004)
    assert play.end.result == "failed"


def test_a_job_outlives_its_listener(play):
    worker = play.begin()
    play.listener_ends(None, 9)
    play.look(1.0)
    (died,) = play.of(ListenerDied)
    assert (died.signal, died.job_continues) == (9, True)
    assert play.end is None
    assert play.watch.busy
    play.look(300.0)
    assert len(play.of(ListenerDied)) == 1
    worker.end(100)
    play.look()
    assert result(play.end) == ("succeeded", "success", 0)
    assert play.end.crash is None
    kinds = [type(fact) for fact in play.facts]
    assert kinds.index(JobEnded) < kinds.index(RunnerExited)


def test_a_worker_without_its_listener_that_is_killed_ends_unknown(play):
    worker = play.begin()
    play.listener_ends(None, 9)
    play.look(1.0)
    worker.end(signal=9)
    play.look()
    assert result(play.end) == ("unknown", "runner_crash", 137)


def test_an_observer_made_anew_reports_the_job_again_and_its_end_once(play):
    worker = play.begin()
    play.facts.clear()
    play.observe()
    play.look()
    assert play.of(JobSeen)
    worker.end(102)
    play.look()
    assert play.end.result == "failed"


def test_after_an_end_that_nobody_observed_the_last_result_decides(play):
    play.begin()
    play.prints(SUCCESS)
    play.prints(FAILURE)
    play.run.worker_process.end(known=False)
    play.facts.clear()
    play.observe()
    play.look()
    play.look(CONFIRM_SECONDS)
    assert play.end.result == "failed"


def test_a_worker_that_came_and_went_unseen_has_a_result(play):
    play.logs("Worker", "Worker", "Message received.")
    play.prints("Running job: build")
    play.prints(SUCCESS)
    play.look()
    assert play.end is None
    play.look(MISSED_SECONDS)
    play.look(CONFIRM_SECONDS)
    assert play.end.result == "succeeded"


def test_a_worker_that_is_late_is_looked_for_less_often(play):
    play.prints("Running job: build")
    play.look()
    assert play.watch.due_in() <= 0.02
    play.look(200.0)
    assert play.watch.due_in() == pytest.approx(0.1)


def test_before_its_worker_was_started_a_name_ends_nothing(play):
    play.prints(f"Running job: a\nb\n2026-01-01 00:00:00Z: {SUCCESS}")
    play.look()
    play.look(60.0)
    assert play.of(JobSeen)
    assert play.end is None


def test_a_job_that_is_lost_before_its_worker_starts_ends_with_the_listener(play):
    play.prints("Running job: build")
    play.look()
    play.listener_ends(0)
    play.look(1.0)
    assert result(play.end) == ("unknown", "runner_crash", None)


def test_our_stop_is_the_cause_of_what_the_worker_reports_then(play):
    worker = play.begin()
    play.watch.stop("timeout")
    assert play.run.interrupts == 1
    worker.end(102)
    play.look(13.0)
    assert result(play.end) == ("failed", "timeout", 102)


def test_a_stop_after_the_workers_end_is_not_the_cause(play):
    worker = play.begin()
    worker.gone = True
    play.look()
    play.watch.stop("shutdown")
    worker.end(102)
    play.look(0.01)
    assert play.end.cause != "shutdown"


# Workers that never begin, or never end.


def test_a_worker_that_does_not_take_its_job_is_killed(play):
    play.logs("Runner", "Listener", "Version: 2.336.0")
    play.prints("Running job: build")
    play.look()
    play.look(10 * GHOST)
    assert not play.of(RunnerFailing), "there is no Worker yet: its lock fails"
    play.run.worker_process = worker = FakeWorker()
    play.look()
    play.look(GHOST - 1)
    assert not worker.signals
    play.look(1.0)
    assert worker.signals == [9]
    assert [fact.code for fact in play.of(RunnerFailing)] == ["worker_stuck"]
    worker.end(signal=9)
    play.look()
    play.prints(FAILURE)
    play.look(0.05)
    assert result(play.end) == ("failed", "worker_stuck", 137)
    assert play.end.crash is None


@pytest.mark.parametrize("features", [{"diag_logs": False}, {}])
def test_where_its_log_cannot_be_read_a_worker_is_left_alone(tmp_path, features):
    play = Play(tmp_path, features)
    if not features:
        shutil.rmtree(play.run.diag_directory)
    play.prints("Running job: build")
    play.run.worker_process = worker = FakeWorker()
    play.look()
    play.look(10 * GHOST)
    assert not worker.signals
    play.watch.close()


def test_a_worker_that_does_not_end_after_its_jobs_result_is_killed(play):
    worker = play.begin()
    play.look(3600.0)
    assert not worker.signals
    play.logs("Worker", "JobRunner", "Job result after all job steps finish: Succeeded")
    play.look()
    play.look(FINISH - 1)
    assert not worker.signals
    play.look(1.0)
    assert worker.signals == [9]
    worker.end(signal=9)
    play.prints(FAILURE)
    play.look()
    assert result(play.end) == ("failed", "worker_stuck", 137)


def test_the_name_of_a_step_does_not_get_a_healthy_worker_killed(play):
    worker = play.begin()
    append(play.run.job_directory / "job-started.json", '{"at":"1"}\n')
    (play.run.job_directory / "job-started.json").chmod(0o600)
    play.logs("Worker", "JobRunner", "Job result after all job steps finish: Failed")
    play.look()
    play.look(10 * FINISH)
    assert not worker.signals


def test_without_a_finish_timeout_a_worker_may_take_for_ever(play):
    worker = play.begin()
    play.watch.limits = Limits(GHOST, 0.0)
    play.logs("Worker", "JobRunner", "Job result after all job steps finish: Failed")
    play.look()
    play.look(1e6)
    assert not worker.signals


def test_a_job_that_was_sent_and_never_came_is_a_ghost(play):
    play.logs("Runner", "BrokerMessageListener", "Acknowledging runner request 'x'.")
    play.look()
    assert play.watch.busy
    play.look(GHOST)
    assert [fact.code for fact in play.of(RunnerFailing)] == ["ghost"]
    assert not play.watch.busy


# Samples, and what a job can do to its runner's folder.


def test_a_short_job_is_sampled_at_once_and_a_long_one_rarely(play):
    play.begin()
    assert len(play.of(JobSampled)) == 1
    for _ in range(20):
        play.look(0.1)
    early = len(play.of(JobSampled))
    assert early >= 5
    play.look(600.0)
    play.facts.clear()
    for _ in range(20):
        play.look(0.1)
    assert len(play.of(JobSampled)) <= 2


def test_figures_are_rounded_to_what_they_mean(play):
    play.run.used = Usage(cpu_seconds=2.6399999999999997)
    worker = play.begin()
    assert play.of(JobSampled)[0].usage["cpu_seconds"] == 2.64
    worker.end(100)
    play.look()
    assert play.end.resource_usage["cpu_seconds"] == 2.64


def test_a_folder_that_was_moved_away_costs_only_its_figure(play):
    worker = play.begin()
    play.run.directory.rename(play.run.directory.with_name("gone"))
    worker.end(100)
    play.look()
    assert play.end.result == "succeeded"
    assert free_bytes(play.run.directory) is None


def test_long_lines_fit_in_the_message_that_reports_the_end(play):
    worker = play.begin()
    for _ in range(20):
        append(play.run.output_path, "é" * 8000 + "\n")
    worker.end(signal=9)
    play.listener_ends(None, 9)
    play.look()
    (exited,) = play.of(RunnerExited)
    assert len(encode(exited)) < 60_000
    assert len(encode(play.end)) < 60_000


def test_a_minimal_watch_reads_nothing_and_takes_the_kernels_word(play):
    worker = play.begin()
    play.prints(SUCCESS)
    play.facts.clear()
    play.observe(minimal=True)
    play.listener_ends(0)
    worker.end(102)
    play.look()
    assert play.end.result == "failed"
    assert not play.of(JobIdentified)
    assert play.of(RunnerExited)[0].last_lines == []


def test_the_listener_is_ready_when_it_says_so_or_has_a_job(play):
    assert not play.watch.listening
    play.prints("Listening for Jobs")
    play.look()
    assert len(play.of(RunnerListening)) == 1
    assert play.watch.listening
