"""One run, observed: its signs and the ends of its processes become facts.

A job ends when its Worker process has ended, and not before. What is printed or logged
earlier may have been written by the job; only what comes after the Worker's end can
count as a result. An observer that is made anew over the same run reports the same
facts again; the arbiter knows which of them are news.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, NamedTuple

from miglet.job import signs
from miglet.job.diag import DiagFolder
from miglet.job.evidence import Evidence
from miglet.job.hooks import HookReports
from miglet.job.inotify import CLOSED_AFTER_WRITE, CREATED, MODIFIED, MOVED_IN, Inotify
from miglet.job.listener_output import Tail
from miglet.job.perflog import PerfLog
from miglet.job.signs import Sign
from miglet.job.tail import FILE_BUDGET_BYTES, RUN_BUDGET_BYTES, Budget
from miglet.job.verdict import STOPS, RunnerExit, crash, is_success, verdict
from miglet.messages.codec import Fact, Value, frozen_value
from miglet.messages.events import JobIdentity
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
from miglet.runner.records import ExitStatus
from miglet.runner.run import Run
from miglet.runner.usage import Usage, UsageSampler
from miglet.runner.worker_process import WorkerProcess

log = logging.getLogger(__name__)

#: A source's time stamp is cut to the second; what is seen this soon after it was
#: seen when it happened, and our own clock is the finer one.
_FRESH_SECONDS = 2.0
#: A run's start is recorded when its Listener already runs: what it wrote a moment
#: before that belongs to the run too.
_HEAD_START_SECONDS = 0.5

#: Seconds for which `finish` reads on before it jumps to the files' ends.
FINISH_SECONDS = 1.0


@frozen_value
class RunPaths(Value):
    """Where one run writes; None where it writes nothing of that kind."""

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
    `open`, wait for `fileno()` and then `read()`, and read once a second too: the
    kernel may have granted no descriptor, or no watch of some folder. When the runner
    has ended, `finish()`.
    """

    def __init__(
        self,
        paths: RunPaths,
        started_at: Callable[[], float],
        features: Mapping[str, bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._earliest_at: Callable[[], float] = lambda: (
            started_at() - _HEAD_START_SECONDS
        )
        self._clock = clock
        budget = Budget(RUN_BUDGET_BYTES)
        self._tail = self._hooks = self._diag = self._perf = None
        self._inotify: Inotify | None = None
        self._watched: dict[Path, int] = {}
        if paths.output:
            self._tail = Tail(paths.output, Budget(FILE_BUDGET_BYTES, budget))
            self._watch(paths.output.parent, MODIFIED | CREATED | MOVED_IN)
        if paths.job_directory and features.get("job_hooks", True):
            self._hooks = HookReports(paths.job_directory)
            self._watch(paths.job_directory, CLOSED_AFTER_WRITE | MOVED_IN)
        if paths.diag_directory and features.get("diag_logs", True):
            self._diag = DiagFolder(
                paths.diag_directory, self._earliest_at, budget, paths.earlier_logs
            )
            self._watch(paths.diag_directory, MODIFIED | CREATED | MOVED_IN)
        if paths.perflog_directory and features.get("perflog", True):
            self._perf = PerfLog(
                paths.perflog_directory, Budget(FILE_BUDGET_BYTES, budget)
            )
            self._watch(paths.perflog_directory, MODIFIED | CREATED | MOVED_IN)

    def open(self) -> None:
        """Ask the kernel to be woken; without it, only polling helps."""
        try:
            self._inotify = Inotify()
            for path, mask in self._watched.items():
                self._inotify.watch(path, mask)
        except OSError as error:
            log.warning("no inotify, signs of a job are polled for: %s", error)

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

        The output is read first and its signs come last: what was logged before a
        result was printed comes before that result.
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
        """The last lines that the Listener printed, without secrets."""
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
        within = min(max(sign.at, self._earliest_at()), seen)
        return replace(sign, at=seen if fresh else within)


#: Seconds that the Worker's exit status may be late: its parent has to collect it.
STATUS_SECONDS = 0.2

#: Seconds, from the Worker's end, for the Listener's result where it is needed: the
#: Worker crashed, or its status cannot be had (a killed one is reported after 0.8 s).
RESULT_SECONDS = 2.0

#: Seconds for the Listener's end, once it has printed a result that has to decide; and
#: for its result where that only tells a lost lock from a cancellation.
CONFIRM_SECONDS = 0.5

#: Seconds between two looks while a Worker is looked for, a result waited for, or a run
#: about to end.
CLOSE_LOOK_SECONDS = 0.02

#: Seconds between two looks while the Worker's exit status may come at any moment: its
#: coming wakes nobody.
STATUS_LOOK_SECONDS = 0.004

#: Seconds after which a Worker that has not come, as long as the first renewal of the
#: job's lock fails, is looked for less often; and between two such looks.
LATE_WORKER_SECONDS = 2.0
LATE_LOOK_SECONDS = 0.1

#: Seconds between two samples of the job's usage: short at first, for a short job, and
#: longer with its age.
FIRST_SAMPLE_SECONDS = 0.1
SAMPLE_SECONDS = 2.0

#: Seconds for which a Worker that left its log must not be found to count as ended.
MISSED_SECONDS = 0.2

#: Lines of the Listener's output that go with its end.
LAST_LINES = 20

VMSTAT = Path("/proc/vmstat")

#: Exit statuses of a Worker with which the result is certain: the others are the
#: Listener's to explain.
_CERTAIN = (100, 101, 102, 104)
_ORDINARY = range(100, 106)

_CLAIMS = (signs.JobResult, signs.WorkerEnded)


class Limits(NamedTuple):
    """How long a runner may be stuck, in seconds; the settings of these names."""

    ghost_timeout: float
    #: 0: for ever.
    finish_timeout: float


class RunObserver:
    """Observes one run; `ended` is set once its end has been reported."""

    def __init__(
        self,
        run: Run,
        runner: Mapping[str, Any],
        features: Mapping[str, bool],
        limits: Limits,
        adopted: bool,
        hooks_expected: bool = True,
        minimal: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.run = run
        #: What the facts say of the runner.
        self.runner = {**runner, "adopted": adopted}
        self.evidence = Evidence(hooks_expected=hooks_expected and not minimal)
        self.limits = limits
        self.ended = False
        #: Why we stopped the runner; see `verdict.STOPS`.
        self.stopped_by: str | None = None
        self._wall = wall
        self._now = 0.0
        self._reported: set[str] = set()
        self._identity = JobIdentity()
        self._sampler = UsageSampler(run.usage)
        self._oom_kills = oom_kills()
        #: Monotonic: the wall clock may jump between a job's message and its start.
        self._since: dict[str, float] = {}
        self._worker: WorkerProcess | None = None
        self._worker_seen_alive = False
        self._worker_ended_at: float | None = None
        self._worker_stuck = False
        #: Claims of a result that came while the Worker lived, as far as we know.
        self._held: list[Sign] = []
        self._listener_status: ExitStatus | None = None
        self._orphaned = False
        paths = RunPaths() if minimal else paths_of(run)
        self._reader = SignReader(paths, started_at(run), features, wall)
        self._reader.open()
        self._sentinel = run.wait_descriptor()

    # What the runner-watcher asks.

    def descriptors(self) -> set[int]:
        """What becomes readable when there may be something to see."""
        found = {self._reader.fileno()}
        if self._listener_status is None:
            found.add(self._sentinel)
        if self._worker and self._worker_ended_at is None:
            found.add(self._worker.fileno())
        return {each for each in found if each is not None}

    def close(self) -> None:
        """Close the descriptors; the run goes on."""
        self._reader.close()
        if self._sentinel is not None:
            os.close(self._sentinel)
            self._sentinel = None
        if self._worker:
            self._worker.close()
            self._worker = None

    @property
    def busy(self) -> bool:
        """Whether a job is, or is about to be, on the machine."""
        requested = self.evidence.saw(signs.JobRequested) and not self._is_ghost()
        return (self._has_job or requested) and not self.done

    @property
    def done(self) -> bool:
        """Whether the one job of this run is over."""
        return "job ended" in self._reported

    @property
    def listening(self) -> bool:
        """Whether the Listener has said that it is ready."""
        return "listening" in self._reported

    @property
    def over(self) -> bool:
        """Whether Listener and Worker are gone: what is left may be killed."""
        return self._listener_status is not None and self._worker_is_gone

    def due_in(self) -> float:
        """Seconds until `look` should be called even if nothing is readable."""
        if self._reader.behind:
            return 0.0
        if not self._has_job or self.done:
            return 1.0
        if self._awaits_status():
            return STATUS_LOOK_SECONDS
        if self._worker_ended_at is not None:
            return CLOSE_LOOK_SECONDS
        if self._worker is None:
            late = self._lasts("job", LATE_WORKER_SECONDS)
            return LATE_LOOK_SECONDS if late else CLOSE_LOOK_SECONDS
        return min(1.0, self._sampler.due_in(self._now))

    def stop(self, cause: str) -> None:
        """Ask the runner to end; `cause` is that of a job which is stopped with it."""
        if "worker ended" not in self._reported and cause in STOPS:
            self.stopped_by = cause
        self.run.interrupt()

    def look(self, now: float) -> Iterator[Fact]:
        """Everything that is new at monotonic time `now`."""
        self._now = now
        if self._listener_status is None and not self.run.alive():
            self._listener_status = self.run.ended()
        self._take(self._reader.read())
        yield from self._job_facts()
        yield from self._runner_failures()
        yield from self._orphan_facts()
        yield from self._end_of_job(self._is_certain())

    def finish(self) -> Iterator[Fact]:
        """The last facts, once the run is over and what it left was killed."""
        self._take(self._reader.finish())
        yield from self._job_facts()
        yield from self._end_of_job(True)
        self.ended = True
        yield RunnerExited(
            run_id=self.run.run_id,
            evidence=self.evidence.as_json(),
            runner_exit=self._runner_exit().as_json(),
            usage=self._final_usage(),
            last_lines=self._reader.last_lines(LAST_LINES),
        )

    # Signs, and which of them count.

    def _take(self, found: Iterable[Sign]) -> None:
        """Add what was found to the evidence, claims of a result with care.

        Whether the Worker lives is asked after the reading: what was read while it
        lived was written before its end.
        """
        claims = self._add(found)
        earlier, self._held = self._held, [*self._held, *claims]
        self._look_for_worker()
        if not self._worker_is_gone:
            return
        if self._report_once("worker ended"):
            self._note_end_of_worker()
            if self._worker_seen_alive:
                self._ignore(earlier)
                self._held = claims
            # Its last lines may have been written since.
            self._held += self._add(self._reader.read())
        for sign in self._held:
            self._mark("claim")
            self.evidence = self.evidence.add(sign)
        self._held = []

    def _add(self, found: Iterable[Sign]) -> list[Sign]:
        """Add to the evidence all but the claims of a result, which are returned."""
        claims: list[Sign] = []
        for sign in found:
            if isinstance(sign, _CLAIMS) and sign.source != "worker_log":
                claims.append(sign)
            else:
                self.evidence = self.evidence.add(sign)
        return claims

    def _ignore(self, claims: list[Sign]) -> None:
        for claim in claims[:1]:
            ignored = signs.ResultIgnored(claim.at, claim.source)
            self.evidence = self.evidence.add(ignored)

    def _look_for_worker(self) -> None:
        if self._worker is None and (self._has_job or self._listener_status):
            self._worker = self.run.worker()
        if self._worker and not self._worker.ended():
            self._worker_seen_alive = True
            self._mark("worker")

    @property
    def _worker_is_gone(self) -> bool:
        """Whether the Worker has ended, or will never come."""
        if self._worker:
            return self._worker.ended()
        return self._listener_status is not None or self._was_missed()

    def _was_missed(self) -> bool:
        """Whether a Worker came and went before it could be found.

        It has left its log and the Listener a result, and is not to be found again.
        """
        left_log = self.evidence.sources.get("WorkerStarted") == "worker_log"
        if not (left_log and self._held):
            return "worker ended" in self._reported
        self._mark("missed")
        return self._lasts("missed", MISSED_SECONDS)

    def _note_end_of_worker(self) -> None:
        self._mark("worker ended")
        status = self._worker.exit_status() if self._worker else None
        known_later = not self._worker_seen_alive
        at = status.ended_at if status and known_later else None
        if at is None and known_later and self._held:
            at = self._held[-1].at
        self._worker_ended_at = self._wall() if at is None else at

    def _worker_status(self) -> ExitStatus | None:
        return self._worker.exit_status() if self._worker else None

    # Facts.

    def _job_facts(self) -> Iterator[Fact]:
        run_id = self.run.run_id
        if self.evidence.saw(signs.JobRequested):
            self._mark("requested")
        if (self.evidence.saw(signs.Listening) or self.busy) and self._report_once(
            "listening"
        ):
            yield self._listening()
        if self._has_job and self._report_once("job"):
            self._oom_kills = oom_kills()
            self._mark("job")
            seen_at = self.evidence.job_seen_at or self._wall()
            yield JobSeen(run_id, self.evidence.job_source or "output", seen_at)
        if self.evidence.identity != self._identity:
            self._identity = self.evidence.identity
            known = dataclasses.asdict(self._identity)
            yield JobIdentified(run_id, self._identity_source(), known)
        if self.busy and not self._sampler.due_in(self._now):
            yield self._sample()

    def _listening(self) -> RunnerListening:
        version = self.evidence.version
        if version:
            self.runner["version"] = version
        attempts = self.runner.get("attempts", 1)
        began = self.runner.get("began", self.run.started_at)
        ready = self.evidence.at(signs.Listening) or self._wall()
        duration = round(max(0.0, ready - began), 3)
        adopted = self.runner["adopted"]
        return RunnerListening(self.runner, attempts, duration, adopted)

    def _identity_source(self) -> str:
        described_by = self.evidence.described_by
        return described_by.get("run_id") or self.evidence.job_source or "output"

    def _sample(self) -> JobSampled:
        age = self._now - self._since.get("job", self._now)
        pause = min(SAMPLE_SECONDS, max(FIRST_SAMPLE_SECONDS, age / 4))
        usage = self._sampler.sample(self._now, pause)
        return JobSampled(self.run.run_id, as_usage(usage))

    def _runner_failures(self) -> Iterator[Fact]:
        if self._is_ghost() and self._report_once("ghost"):
            text = self.evidence.text(signs.JobSkipped)
            text = text or "a job was sent and never came"
            yield RunnerFailing(self.run.run_id, "ghost", text)
        reason = self._stuck()
        if reason and self._worker and self._report_once("stuck"):
            yield RunnerFailing(self.run.run_id, "worker_stuck", reason)
            self._worker_stuck = self._worker.signal(signal.SIGKILL)

    def _is_ghost(self) -> bool:
        """Whether a job was sent that will never run here (actions/runner#4617)."""
        if self._has_job:
            return False
        if self.evidence.saw(signs.JobSkipped):
            return True
        return self._lasts("requested", self.limits.ghost_timeout)

    def _stuck(self) -> str | None:
        """Why the Worker is to be killed, so that its job can be run again.

        Without it the Listener reports the job to GitHub at once; with it, it renews
        the job's lock for ever (actions/runner#4598).
        """
        if not self._worker_seen_alive or self._worker_is_gone or self._orphaned:
            return None
        begin, finish = self.limits.ghost_timeout, self.limits.finish_timeout
        if not self._began_its_job() and self._lasts("worker", begin):
            return f"the Worker did not take its job within {begin:g} s"
        if self._finished_its_job():
            self._mark("finished")
            if finish and self._lasts("finished", finish):
                return f"the Worker did not end within {finish:g} s of its job's result"
        return None

    def _began_its_job(self) -> bool:
        """Whether the Worker has its job, or we could not know."""
        kinds = (signs.JobReceived, signs.StepsBegan, signs.HookStarted)
        shown = any(self.evidence.saw(kind) for kind in kinds)
        return shown or not self._reader.reads_logs

    def _finished_its_job(self) -> bool:
        """Whether the Worker's log has the job's result, and our hook agrees.

        Else the name of a step could say so of a job that goes on.
        """
        if "worker_log" not in self.evidence.results:
            return False
        ended = (signs.HookCompleted, signs.CancelReceived, signs.HookRefused)
        agrees = any(self.evidence.saw(kind) for kind in ended)
        return agrees or not self.evidence.saw(signs.HookStarted)

    def _orphan_facts(self) -> Iterator[Fact]:
        status = self._listener_status
        if status is None or self._worker_is_gone or not self._report_once("orphan"):
            return
        self._orphaned = True
        lines = self._reader.last_lines(LAST_LINES)
        yield ListenerDied(
            self.run.run_id, status.exit_code, status.signal, lines, job_continues=True
        )

    # The end of the job.

    def _is_certain(self) -> bool:
        """Whether all is known that decides about the job, or need be waited for."""
        if "worker ended" not in self._reported or self._awaits_status():
            return False
        if self._lasts("worker ended", RESULT_SECONDS):
            return True
        if self._reader.behind:
            return False
        status = self._worker_status()
        if status is None:
            return self._lasts("claim", CONFIRM_SECONDS)
        if status.exit_code in _CERTAIN or self._orphaned:
            return True
        ordinary = status.exit_code in _ORDINARY
        printed = self.evidence.printed
        if printed and (ordinary or not is_success(printed)):
            return True
        # A Worker that crashed did not succeed, whatever its job printed: the Listener
        # reports the crash, unless it was killed as well.
        return ordinary and self._lasts("worker ended", CONFIRM_SECONDS)

    def _awaits_status(self) -> bool:
        """Whether the exit status of a Worker that has ended may still come."""
        if "worker ended" not in self._reported or self._worker is None:
            return False
        late = self._lasts("worker ended", STATUS_SECONDS)
        return not late and self._worker.exit_status() is None

    def _end_of_job(self, certain: bool) -> Iterator[Fact]:
        if not certain or not self._has_job or not self._report_once("job ended"):
            return
        runner_exit = self._runner_exit()
        found = verdict(self.evidence, runner_exit)
        at = self._worker_ended_at
        yield JobEnded(
            run_id=self.run.run_id,
            result=found.result,
            cause=found.cause,
            exit_code=found.exit_code,
            finished_at=self._wall() if at is None else at,
            evidence=list(found.reasons),
            resource_usage=self._final_usage(),
            crash=self._crash(runner_exit),
        )

    @property
    def _has_job(self) -> bool:
        """Whether a job was seen; a Worker is one, whatever the logs say."""
        return self.evidence.job_seen_at is not None or self._worker is not None

    def _crash(self, runner_exit: RunnerExit) -> dict[str, Any] | None:
        found = crash(runner_exit, self.evidence)
        if found is None or not found.abnormal or runner_exit.worker_stuck:
            return None
        if self._orphaned and found.kind != "worker_crash":
            return None  # ListenerDied has said so.
        by_worker = runner_exit.worker_status is not None
        return {
            "exit_code": runner_exit.worker_exit_code
            if by_worker
            else runner_exit.exit_code,
            "signal": runner_exit.worker_signal if by_worker else runner_exit.signal,
            "last_lines": self._reader.last_lines(LAST_LINES),
        }

    def _runner_exit(self) -> RunnerExit:
        listener, worker = self._listener_status, self._worker_status()
        return RunnerExit(
            exit_code=listener.exit_code if listener else None,
            signal=listener.signal if listener else None,
            known=bool(listener and listener.known),
            worker_exit_code=worker.exit_code if worker else None,
            worker_signal=worker.signal if worker else None,
            orphaned=self._orphaned,
            worker_stuck=self._worker_stuck,
            stopped_by=self.stopped_by,
            oom_kill_delta=max(oom_kills() - self._oom_kills, self.run.oom_kills()),
            disk_free_bytes=free_bytes(self.run.directory),
            ghost=self._is_ghost(),
        )

    def _final_usage(self) -> dict[str, Any]:
        if self._listener_status is None:
            self._sampler.sample(self._now, SAMPLE_SECONDS)
        usage = as_usage(self._sampler.peak)
        for status in (self._listener_status, self._worker_status()):
            usage = with_final(usage, status) if status else usage
        return usage

    # Milestones.

    def _report_once(self, name: str) -> bool:
        """Note that this is reported; False if it was before."""
        if name in self._reported:
            return False
        self._reported.add(name)
        return True

    def _mark(self, name: str) -> None:
        """Note when this happened, unless it was noted before."""
        self._since.setdefault(name, self._now)

    def _lasts(self, name: str, seconds: float) -> bool:
        """Whether this was noted, and that long ago."""
        return name in self._since and self._now >= self._since[name] + seconds


def paths_of(run: Run) -> RunPaths:
    """Where the run writes."""
    runtime = run.job_directory.parent if run.job_directory else None
    return RunPaths(
        output=run.output_path,
        job_directory=run.job_directory,
        diag_directory=run.diag_directory,
        perflog_directory=runtime / "perflog" if runtime else None,
        earlier_logs=run.earlier_logs,
    )


def started_at(run: Run) -> Callable[[], float]:
    """When the run started, by the wall clock of then or of now, the earlier one."""
    uptime = run.listener.start_time / os.sysconf("SC_CLK_TCK")

    def earliest() -> float:
        booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return min(run.started_at, booted_at + uptime)

    return earliest


def as_usage(usage: Usage) -> dict[str, Any]:
    """The figures of a job's usage, rounded to what they mean."""
    return {**dataclasses.asdict(usage), "cpu_seconds": round(usage.cpu_seconds, 3)}


def with_final(usage: dict[str, Any], status: ExitStatus) -> dict[str, Any]:
    """The usage with what the kernel says of all that was waited for at the end."""
    return {key: max(usage[key], getattr(status, key) or 0) for key in usage}


def free_bytes(path: Path) -> int | None:
    """Room that an ordinary user has left on the disk at `path`; None: not to be had.

    The job can have moved or deleted the folder.
    """
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def oom_kills(path: Path = VMSTAT) -> int:
    """How many processes the OOM killer has killed since the machine started."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, number = line.partition(" ")
        if name == "oom_kill":
            return int(number)
    return 0
