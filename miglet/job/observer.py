"""One run, watched: its signs become facts, each told once and in order.

A watch made anew over the same run tells the same facts again; the arbiter knows
which of them are news.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from miglet.job import signs
from miglet.job.ending import Ending
from miglet.job.evidence import Evidence
from miglet.job.reader import Places, SignReader
from miglet.job.signs import JobIdentity
from miglet.messages.codec import Fact
from miglet.messages.facts import (
    JobIdentified,
    JobResultSeen,
    JobSampled,
    JobSeen,
    RunnerExited,
    RunnerListening,
    RunnerTroubled,
)
from miglet.runner.exitstatus import ExitStatus
from miglet.runner.run import Run
from miglet.runner.usage import Usage

#: Seconds that a Listener gets, after it told the job's result, to end before the
#: result is passed on without its exit status.
RESULT_SECONDS = 0.05

#: Seconds between two samples of the job's usage.
SAMPLE_SECONDS = 2.0

#: Lines of the Listener's output that go with its end.
LAST_LINES = 20

VMSTAT = Path("/proc/vmstat")


class Watch:
    """Looks at one run; `ended` is set once its end has been told."""

    def __init__(
        self,
        run: Run,
        runner: Mapping[str, Any],
        features: Mapping[str, bool],
        ghost_timeout: float,
        adopted: bool,
    ) -> None:
        self.run = run
        #: What the facts say of the runner.
        self.runner = {**runner, "adopted": adopted}
        self.evidence = Evidence(hooks_expected=features.get("job_hooks", True))
        self.ended = False
        #: Seconds; may be changed while the run is watched.
        self.ghost_timeout = ghost_timeout
        self._told: set[str] = set()
        self._identity = JobIdentity()
        self._usage = Usage()
        self._sampled = 0.0
        self._result_at: float | None = None
        #: Monotonic: the wall clock may jump between a job's message and its start.
        self._requested_now: float | None = None
        self._oom_kills = oom_kills()
        self._reader = SignReader(places_of(run), run.started_at, features)
        self._reader.open()
        self._sentinel = run.wait_descriptor()

    def descriptors(self) -> list[int]:
        """What becomes readable when there may be something to see."""
        both = (self._reader.fileno(), self._sentinel)
        return [each for each in both if each is not None]

    def close(self) -> None:
        """Let the descriptors go; the run goes on."""
        self._reader.close()
        if self._sentinel is not None:
            os.close(self._sentinel)
            self._sentinel = None

    @property
    def busy(self) -> bool:
        """Whether a job is, or is about to be, on the machine."""
        requested = self.evidence.saw(signs.JobRequested) and not self._is_ghost()
        return (self.evidence.job_seen_at is not None or requested) and not self.done

    @property
    def done(self) -> bool:
        """Whether the one job of this run is over."""
        return self.evidence.result_told

    @property
    def listening(self) -> bool:
        """Whether the Listener has said that it is ready."""
        return "listening" in self._told

    def due_in(self) -> float:
        """Seconds until `look` should be called even if nothing is readable."""
        if self._reader.behind:
            return 0.0
        if self._result_at is not None and "result" not in self._told:
            return RESULT_SECONDS / 5
        return SAMPLE_SECONDS if self.busy else 1.0

    def look(self, now: float) -> list[Fact]:
        """Everything that is new at monotonic time `now`."""
        status = None if self.run.alive() else self.run.ended()
        found = self._reader.finish() if status else self._reader.read()
        for sign in found:
            self.evidence = self.evidence.noted(sign)
        if self._requested_now is None and self.evidence.saw(signs.JobRequested):
            self._requested_now = now
        return [*self._job_facts(now, status), *self._end_facts(status)]

    def _job_facts(self, now: float, status: ExitStatus | None) -> Iterator[Fact]:
        run_id = self.run.run_id
        if self._first("listening", self.evidence.saw(signs.Listening) or self.busy):
            yield self._listening()
        seen_at = self.evidence.job_seen_at
        source = self.evidence.job_source or "output"
        if seen_at is not None and self._first("job", True):
            self._oom_kills = oom_kills()
            yield JobSeen(run_id, source, seen_at)
        if self.evidence.identity != self._identity:
            self._identity = self.evidence.identity
            known = dataclasses.asdict(self._identity)
            yield JobIdentified(run_id, self._identity_source(), known)
        yield from self._samples(now)
        yield from self._results(now, status)
        yield from self._trouble()

    def _listening(self) -> RunnerListening:
        version = self.evidence.version
        if version:
            self.runner["version"] = version
        attempts = self.runner.get("attempts", 1)
        began = self.runner.get("began", self.run.started_at)
        ready = self.evidence.at(signs.Listening) or time.time()
        duration = round(max(0.0, ready - began), 3)
        adopted = self.runner["adopted"]
        return RunnerListening(self.runner, attempts, duration, adopted)

    def _identity_source(self) -> str:
        told = self.evidence.described_by
        return told.get("run_id") or self.evidence.job_source or "output"

    def _samples(self, now: float) -> Iterator[Fact]:
        if not self.busy or now < self._sampled + SAMPLE_SECONDS:
            return
        self._sampled = now
        self._usage = self.run.usage().peak(self._usage)
        yield JobSampled(self.run.run_id, dataclasses.asdict(self._usage))

    def _results(self, now: float, status: ExitStatus | None) -> Iterator[Fact]:
        if not self.done or status:
            return
        if self._result_at is None:
            self._result_at = now
            self._usage = self.run.usage().peak(self._usage)
        if now >= self._result_at + RESULT_SECONDS and self._first("result", True):
            yield JobResultSeen(**self._report(None))

    def _trouble(self) -> Iterator[Fact]:
        if self._is_ghost() and self._first("ghost", True):
            text = (
                self.evidence.text(signs.JobSkipped) or "a job was sent and never came"
            )
            yield RunnerTroubled(self.run.run_id, "ghost", text)

    def _is_ghost(self) -> bool:
        """Whether a job was sent that will never run here (actions/runner#4617)."""
        if self.evidence.job_seen_at is not None:
            return False
        if self.evidence.saw(signs.JobSkipped):
            return True
        since = self._requested_now
        return since is not None and time.monotonic() - since > self.ghost_timeout

    def _end_facts(self, status: ExitStatus | None) -> Iterator[Fact]:
        if status is None or self.ended:
            return
        self.ended = True
        yield RunnerExited(**self._report(status))

    def _report(self, status: ExitStatus | None) -> dict[str, Any]:
        usage = dataclasses.asdict(self._usage)
        if status:
            usage = with_final(usage, status)
        return {
            "run_id": self.run.run_id,
            "evidence": self.evidence.as_json(),
            "ending": self._ending(status).as_json(),
            "usage": usage,
            "last_lines": self._reader.last_lines(LAST_LINES),
        }

    def _ending(self, status: ExitStatus | None) -> Ending:
        return Ending(
            exit_code=status.exit_code if status else None,
            signal=status.signal if status else None,
            known=bool(status and status.known),
            oom_kill_delta=max(oom_kills() - self._oom_kills, self.run.oom_kills()),
            disk_free_bytes=free_bytes(self.run.directory),
            ghost=self._is_ghost(),
        )

    def _first(self, name: str, happened: bool) -> bool:
        """Whether this has happened and was not told before."""
        if not happened or name in self._told:
            return False
        self._told.add(name)
        return True


def places_of(run: Run) -> Places:
    """Where the run leaves its traces."""
    runtime = run.job_directory.parent if run.job_directory else None
    return Places(
        output=run.output_path,
        job_directory=run.job_directory,
        diag_directory=run.directory / "_diag",
        perflog_directory=runtime / "perflog" if runtime else None,
        earlier_logs=run.earlier_logs,
    )


def with_final(usage: dict[str, Any], status: ExitStatus) -> dict[str, Any]:
    """The usage with what the kernel told of all that was waited for at the end."""
    return {
        key: max(
            (each for each in (usage[key], getattr(status, key)) if each), default=0
        )
        for key in usage
    }


def free_bytes(path: Path) -> int:
    """Room that an ordinary user has left on the disk at `path`."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def oom_kills(path: Path = VMSTAT) -> int:
    """How many processes the kernel has killed for want of memory since its start."""
    for line in path.read_text(encoding="ascii").splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill":
            return int(number)
    return 0
