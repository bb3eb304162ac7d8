"""The one place where a job's result and cause are decided; pure.

The first rule that applies is the verdict. `succeeded` needs somebody who said so and
nobody who said otherwise; an exit without a result is never a success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from miglet.job import signs
from miglet.job.ending import Ending
from miglet.job.evidence import Evidence
from miglet.job.signs import RESULTS

#: Less room than this at the end counts as a full disk.
DISK_FULL_BYTES = 16 * 1024 * 1024

#: The Worker's exit status is 100 + result (actions/runner TaskResultUtil.cs).
_WORKER_CODES = range(100, 100 + len(RESULTS))
#: The Listener can be told to exit likewise, but then says 100 also for a job that
#: never ran (JobDispatcher.cs): only these of its codes tell a result.
_LISTENER_CODES = range(102, 106)
_KILLED = 137

#: Where sources differ, what is told is the first of these that anybody told. A Worker
#: whose Listener gave the job up says that it was cancelled (JobDispatcher.cs).
_GRAVITY = (
    "Abandoned",
    "Canceled",
    "Failed",
    "Skipped",
    "SucceededWithIssues",
    "Succeeded",
)


@dataclass(frozen=True)
class Verdict:
    """How the job ended, why, and on what grounds."""

    #: succeeded, failed, cancelled, abandoned or unknown.
    result: str
    cause: str
    #: The Worker's own status if it crashed, else the Listener's, else the Worker's.
    exit_code: int | None
    #: The grounds, for people: `JobCompleted`'s `evidence`.
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """Evidence and ending, with the questions that the rules ask."""

    evidence: Evidence
    ending: Ending

    @property
    def told(self) -> str | None:
        """The result that was told, the gravest where sources differ."""
        told = set(_statements(self.evidence, self.ending))
        return next((result for result in _GRAVITY if result in told), None)

    @property
    def stop(self) -> str | None:
        """Why the Listener was told to end, if it was, by us or by somebody else."""
        signalled = self.evidence.saw(signs.ShutdownSignalled)
        return self.ending.stopped_by or ("shutdown" if signalled else None)

    @property
    def job_seen(self) -> bool:
        """Whether a job was on the machine at all."""
        return self.evidence.job_seen_at is not None

    @property
    def worker_crashed(self) -> bool:
        """Whether the Worker died, by its status, or by what it left undone."""
        if self._put_down:
            return False
        if self.evidence.worker_code is not None:
            return self.evidence.worker_code not in _WORKER_CODES
        return self.told == "Failed" and self._ended_between_hooks

    @property
    def oom(self) -> bool:
        """Whether the kernel killed something for want of memory during the job."""
        return self.ending.oom_kill_delta > 0

    @property
    def worker_oom(self) -> bool:
        """Whether the Worker seems to be what it killed."""
        return self.oom and self.evidence.worker_code in (None, _KILLED)

    @property
    def disk_full(self) -> bool:
        """Whether there was no room, by the runner's logs or by measurement."""
        free = self.ending.disk_free_bytes
        short = free is not None and free < DISK_FULL_BYTES
        return short or self.evidence.saw(signs.DiskFull)

    @property
    def setup_failed(self) -> bool:
        """Whether "Set up job" was never passed, as far as anybody could have seen."""
        passed = (signs.HookStarted, signs.HookCompleted, signs.StepsBegan)
        if any(self.evidence.saw(kind) for kind in passed):
            return False
        # Told by the Worker's log, then: a hook that tells it has shown itself too.
        return self._hooks_trusted or self.evidence.saw(signs.JobIdentified)

    @property
    def ghost(self) -> bool:
        """Whether a job was announced and never came."""
        announced = self.ending.ghost or self.evidence.saw(signs.JobSkipped)
        return announced and not self.evidence.saw(signs.JobRunning) and not self.told

    @property
    def _put_down(self) -> bool:
        """Whether its Listener killed the Worker of a job that it had given up."""
        given_up = self.told in ("Canceled", "Abandoned")
        return given_up and self.evidence.worker_code == _KILLED

    @property
    def _hooks_trusted(self) -> bool:
        """Whether a hook that ran would have been heard."""
        refused = self.evidence.saw(signs.HookRefused)
        return self.evidence.hooks_expected and not refused

    @property
    def _ended_between_hooks(self) -> bool:
        """Only a Worker's death skips the completed hook of a job that failed."""
        started = self.evidence.saw(signs.HookStarted)
        completed = self.evidence.saw(signs.HookCompleted)
        return self._hooks_trusted and started and not completed


def _statements(evidence: Evidence, ending: Ending) -> Iterator[str]:
    """Every result that counts as told.

    What the Worker's log says of its steps does not: the Worker may yet have failed
    to report it.
    """
    for source in ("output", "runner_log"):
        if source in evidence.results:
            yield evidence.results[source]
    codes = (evidence.worker_code, _WORKER_CODES), (ending.exit_code, _LISTENER_CODES)
    for code, telling in codes:
        if code is not None and code in telling:
            yield RESULTS[code - 100]


class Rule(NamedTuple):
    """If `applies`, the job ended like this."""

    result: str
    #: The cause; None: that of the stop.
    cause: str | None
    applies: Callable[[Case], object]


#: The first that applies decides.
RULES = [
    Rule("abandoned", "ghost", lambda c: c.ghost),
    Rule("cancelled", None, lambda c: c.told == "Canceled" and c.stop),
    Rule("cancelled", "cancelled", lambda c: c.told == "Canceled"),
    Rule("abandoned", None, lambda c: c.told == "Abandoned" and c.stop),
    Rule("abandoned", "unknown", lambda c: c.told == "Abandoned"),
    # A Worker that died told nothing; "Failed" is the Listener's word for it.
    Rule("cancelled", None, lambda c: c.worker_crashed and c.ending.stopped_by),
    Rule(
        "failed", "oom_runner", lambda c: c.worker_crashed and c.told and c.worker_oom
    ),
    Rule("failed", "disk_full", lambda c: c.worker_crashed and c.told and c.disk_full),
    Rule("failed", "worker_crash", lambda c: c.worker_crashed and c.told),
    Rule("failed", "oom_job", lambda c: c.told == "Failed" and c.oom),
    Rule("failed", "disk_full", lambda c: c.told == "Failed" and c.disk_full),
    Rule("failed", "setup_failed", lambda c: c.told == "Failed" and c.setup_failed),
    Rule("failed", "failure", lambda c: c.told == "Failed"),
    # Nothing ran and nothing went wrong.
    Rule("cancelled", "cancelled", lambda c: c.told == "Skipped"),
    Rule("succeeded", "success", lambda c: c.told),
    # From here on nobody told a result.
    Rule("unknown", "machine_restarted", lambda c: c.ending.boot_changed),
    Rule("cancelled", None, lambda c: c.job_seen and c.ending.stopped_by),
    Rule("unknown", None, lambda c: c.stop),
    Rule("unknown", "oom_runner", lambda c: c.worker_crashed and c.worker_oom),
    Rule("unknown", "oom_runner", lambda c: c.ending.killed and c.oom),
    Rule(
        "unknown",
        "version_deprecated",
        lambda c: c.evidence.saw(signs.VersionDeprecated) or c.ending.exit_code == 7,
    ),
    Rule("unknown", "disk_full", lambda c: c.job_seen and c.disk_full),
    Rule("unknown", "worker_crash", lambda c: c.worker_crashed),
    Rule("unknown", "runner_crash", lambda c: c.job_seen),
    Rule("unknown", "unknown", lambda c: True),
]


def verdict(evidence: Evidence, ending: Ending) -> Verdict:
    """What became of the job; every evidence leads to exactly one verdict."""
    case = Case(evidence, ending)
    rule = next(rule for rule in RULES if rule.applies(case))
    cause = rule.cause or case.stop or "unknown"
    return Verdict(rule.result, cause, exit_code(case), tuple(reasons(case)))


def exit_code(case: Case) -> int | None:
    """The one status that says most about the job; None when there is none."""
    worker, listener = case.evidence.worker_code, case.ending.status
    if worker is not None and worker not in _WORKER_CODES:
        return worker
    return worker if listener is None else listener


def reasons(case: Case) -> Iterator[str]:
    """The grounds of a verdict, one phrase each."""
    evidence, ending = case.evidence, case.ending
    for source, result in sorted(evidence.results.items()):
        yield f"result {result} ({source})"
    if not evidence.results:
        yield "no result told"
    if evidence.worker_code is not None:
        yield f"worker exited with {evidence.worker_code}"
    yield _end_of_listener(ending)
    for kind, phrase in _PHRASES.items():
        if evidence.saw(kind):
            yield ": ".join(filter(None, (phrase, evidence.text(kind))))
    if ending.stopped_by:
        yield f"stopped by MIGlet: {ending.stopped_by}"
    if case.oom:
        yield f"out-of-memory kills during the job: {ending.oom_kill_delta}"
    if case.disk_full and ending.disk_free_bytes is not None:
        yield f"disk free bytes: {ending.disk_free_bytes}"
    if ending.boot_changed:
        yield "the machine was started again"


def _end_of_listener(ending: Ending) -> str:
    if ending.signal is not None:
        return f"listener ended by signal {ending.signal}"
    if ending.exit_code is not None:
        return f"listener exited with {ending.exit_code}"
    return "how the listener ended is not known"


_PHRASES: dict[type[signs.Sign], str] = {
    signs.JobRunning: "job was running",
    signs.StepsBegan: "steps had begun",
    signs.HookStarted: "started hook ran",
    signs.HookCompleted: "completed hook ran",
    signs.HookRefused: "hook report refused",
    signs.CancelReceived: "cancel received",
    signs.ShutdownSignalled: "shutdown signalled to the listener",
    signs.JobSkipped: "job could not be acquired",
    signs.RegistrationGone: "registration gone",
    signs.VersionDeprecated: "version deprecated",
    signs.DiskFull: "no space left on device",
    signs.RunnerFailed: "listener failed",
}
