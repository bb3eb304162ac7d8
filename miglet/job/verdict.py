"""The one place where a job's result and cause are decided; pure.

The first rule that applies is the verdict. The result is what was reported to GitHub:
the Worker exits with it, and a job cannot forge an exit status. What is printed or
logged counts only as far as the observer let it count, and only where that status does
not say enough. An exit without a result is never a success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from miglet.errors import BadMessage
from miglet.job import signs
from miglet.job.evidence import Evidence
from miglet.job.signs import RESULTS
from miglet.messages.codec import Value, frozen_value

#: Why we stop a job; each is the cause of a job's end by that name too.
STOPS = ("shutdown", "timeout", "termination_notice")


@frozen_value
class RunnerExit(Value):
    """The end of a Listener and of its Worker, as far as the kernel reported it."""

    #: The Listener's exit status; None if a signal ended it, or it is not known.
    exit_code: int | None = None
    signal: int | None = None
    #: Whether the Listener has ended and it is known how.
    known: bool = False
    #: The same of the Worker: not what a log says of it.
    worker_exit_code: int | None = None
    worker_signal: int | None = None
    #: Whether the Listener ended before its Worker.
    orphaned: bool = False
    #: Whether we killed the Worker because it did not begin, or not end.
    worker_stuck: bool = False
    #: Why we stopped the runner while its job ran (one of STOPS); None: we did not.
    stopped_by: str | None = None
    #: How many processes the OOM killer killed during the job.
    oom_kill_delta: int = 0
    #: Room left where the job works; None: not measured.
    disk_free_bytes: int | None = None
    #: Whether the machine was started again meanwhile.
    boot_changed: bool = False
    #: Whether a job was announced and none came within the limit.
    ghost: bool = False

    @property
    def status(self) -> int | None:
        """The Listener's exit status as a shell gives it: 128 + signal."""
        return shell_status(self.exit_code, self.signal)

    @property
    def worker_status(self) -> int | None:
        """The Worker's exit status as a shell gives it; None: not known."""
        return shell_status(self.worker_exit_code, self.worker_signal)

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended the Listener, as the kernel's OOM killer does."""
        return self.status == 137

    def as_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    @staticmethod
    def of_json(document: Mapping[str, Any]) -> RunnerExit:
        """What `as_json` gave; raises BadMessage for anything else."""
        names = {field.name for field in fields(RunnerExit)}
        try:
            return RunnerExit(**{k: v for k, v in document.items() if k in names})
        except (AttributeError, TypeError) as error:
            raise BadMessage(f"not the exit of a run: {error!r}") from error


def shell_status(exit_code: int | None, signal: int | None) -> int | None:
    """An exit status as a shell gives it: 128 and the number of the signal."""
    return 128 + signal if signal is not None else exit_code


#: Less room than this at the end counts as a full disk.
DISK_FULL_BYTES = 16 * 1024 * 1024

#: Said in the evidence of a job whose Worker's exit status could not be had.
STATUS_UNKNOWN = "worker_status_unknown"

#: The Worker's exit status is 100 + result (actions/runner TaskResultUtil.cs).
_WORKER_CODES = range(100, 100 + len(RESULTS))
#: The Listener can be set to exit likewise, but then says 100 also for a job that never
#: ran (JobDispatcher.cs): only these of its codes tell a result.
_LISTENER_CODES = range(102, 106)
_KILLED = 137

#: The result of the event, for each of the runner's. Skipped: nothing ran and nothing
#: went wrong.
_NAMES = {
    "Succeeded": "succeeded",
    "SucceededWithIssues": "succeeded",
    "Failed": "failed",
    "Canceled": "cancelled",
    "Skipped": "cancelled",
    "Abandoned": "abandoned",
}


@frozen_value
class Verdict(Value):
    """How the job ended, why, and on what grounds."""

    #: succeeded, failed, cancelled, abandoned or unknown.
    result: str
    cause: str
    #: 0 for a success and nothing else, otherwise the Worker's status where known.
    exit_code: int | None
    #: The grounds, for people: `JobCompleted`'s `evidence`.
    reasons: tuple[str, ...]


@frozen_value
class Case(Value):
    """Evidence and exit of a run, with the questions that the rules ask."""

    evidence: Evidence
    runner_exit: RunnerExit

    @property
    def reported(self) -> str | None:
        """The result that was reported to GitHub, or else that the Listener printed."""
        status = self.runner_exit.worker_status
        if status is None:
            return self._claimed
        if status not in _WORKER_CODES:
            return self._unless_success(self.evidence.printed)
        result = RESULTS[status - 100]
        # A Listener that lost the job's lock has its Worker cancel the job.
        lost = result == "Canceled" and self.evidence.printed == "Abandoned"
        return "Abandoned" if lost else result

    @property
    def _claimed(self) -> str | None:
        """The result as far as the Listener and the logs can be believed."""
        result = self.evidence.printed or self._result_of_code
        if result == "Canceled" and self._signalled:
            # It prints this for whatever its Worker reports after a signal.
            return self.evidence.results.get("worker_log", result)
        code = self.evidence.worker_code
        died = code is not None and code not in _WORKER_CODES
        doubtful = died or self.runner_exit.signal is not None
        return self._unless_success(result) if doubtful else result

    @staticmethod
    def _unless_success(result: str | None) -> str | None:
        """A success is not believed of a killed runner, or of a Worker that died."""
        return None if is_success(result) else result

    @property
    def _result_of_code(self) -> str | None:
        """The result that an exit code tells, in the log or of the Listener."""
        codes = (
            (self.evidence.worker_code, _WORKER_CODES),
            (self.runner_exit.exit_code, _LISTENER_CODES),
        )
        for code, known in codes:
            if code is not None and code in known:
                return RESULTS[code - 100]
        return None

    @property
    def stop(self) -> str | None:
        """Why the Listener was asked to end, if it was, by us or by somebody else."""
        return self.runner_exit.stopped_by or ("shutdown" if self._signalled else None)

    @property
    def _signalled(self) -> bool:
        """Whether the Worker was stopped by its Listener, and not by the server."""
        both = (signs.ShutdownReceived, signs.CancelReceived)
        return all(self.evidence.saw(kind) for kind in both)

    @property
    def job_seen(self) -> bool:
        """Whether a job was on the machine at all."""
        return self.evidence.job_seen_at is not None

    @property
    def worker_crashed(self) -> bool:
        """Whether the Worker died, by its status, or by what it left undone."""
        if self._put_down:
            return False
        if self._any_status is not None:
            return self._any_status not in _WORKER_CODES
        return self.reported == "Failed" and self._ended_between_hooks

    @property
    def _any_status(self) -> int | None:
        """The Worker's status by the kernel, or else by the Listener's log."""
        status = self.runner_exit.worker_status
        return self.evidence.worker_code if status is None else status

    @property
    def unreported(self) -> bool:
        """Whether the Worker gave up because GitHub did not take the result."""
        exited = self.runner_exit.worker_signal is None and self._any_status != _KILLED
        return exited and self.worker_crashed and "worker_log" in self.evidence.results

    @property
    def registration_gone(self) -> bool:
        """Whether the service had removed the runner, if a job's name cannot say so."""
        forgeable = self.evidence.saw(signs.NameOfSeveralLines)
        return self.evidence.saw(signs.RegistrationGone) and not forgeable

    @property
    def oom(self) -> bool:
        """Whether the OOM killer killed something during the job."""
        return self.runner_exit.oom_kill_delta > 0

    @property
    def worker_oom(self) -> bool:
        """Whether the Worker seems to be what it killed."""
        return self.oom and self._any_status in (None, _KILLED)

    @property
    def disk_full(self) -> bool:
        """Whether there was no room: measured, or what the Worker died of.

        Text alone is no fault: a step may well be about full disks.
        """
        free = self.runner_exit.disk_free_bytes
        short = free is not None and free < DISK_FULL_BYTES
        return short or (self.worker_crashed and self.evidence.saw(signs.DiskFull))

    @property
    def setup_failed(self) -> bool:
        """Whether "Set up job" was never passed, as far as anybody could have seen."""
        passed = (signs.HookStarted, signs.HookCompleted, signs.StepsBegan)
        if any(self.evidence.saw(kind) for kind in passed):
            return False
        # Identified by the Worker's log, then: a hook that did has shown itself.
        return self._hooks_trusted or self.evidence.saw(signs.JobIdentified)

    @property
    def ghost(self) -> bool:
        """Whether a job was announced and never came."""
        announced = self.runner_exit.ghost or self.evidence.saw(signs.JobSkipped)
        came = self.evidence.saw(signs.JobRunning) or self.reported
        return announced and not came

    @property
    def _put_down(self) -> bool:
        """Whether its Listener killed the Worker of a job that it had given up."""
        given_up = self.evidence.printed in ("Canceled", "Abandoned")
        return given_up and self._any_status == _KILLED

    @property
    def _hooks_trusted(self) -> bool:
        """Whether a hook that ran would have reported."""
        refused = self.evidence.saw(signs.HookRefused)
        return self.evidence.hooks_expected and not refused

    @property
    def _ended_between_hooks(self) -> bool:
        """Only a Worker's death skips the completed hook of a job that failed."""
        started = self.evidence.saw(signs.HookStarted)
        completed = self.evidence.saw(signs.HookCompleted)
        return self._hooks_trusted and started and not completed and not self.stop


def is_success(result: str | None) -> bool:
    """Whether this TaskResult is a success, with issues or without."""
    return _NAMES.get(result or "") == "succeeded"


class Rule(NamedTuple):
    """If `applies`, the job ended like this."""

    #: The result; None: the one that was reported.
    result: str | None
    #: The cause; None: that of the stop.
    cause: str | None
    applies: Callable[[Case], object]


#: The first that applies decides.
RULES = [
    Rule("abandoned", "ghost", lambda c: c.ghost),
    Rule(
        None, "worker_stuck", lambda c: c.runner_exit.worker_stuck and c.worker_crashed
    ),
    Rule("abandoned", None, lambda c: c.reported == "Abandoned" and c.stop),
    Rule("abandoned", "lock_lost", lambda c: c.reported == "Abandoned"),
    Rule("cancelled", None, lambda c: c.reported == "Canceled" and c.stop),
    Rule(
        "cancelled",
        "registration_gone",
        lambda c: c.reported == "Canceled" and c.registration_gone,
    ),
    Rule("cancelled", "cancelled", lambda c: c.reported == "Canceled"),
    # A Worker that died reported nothing; "Failed" is the Listener's word for it.
    Rule("failed", None, lambda c: c.reported == "Failed" and c.stop),
    Rule("failed", "result_not_reported", lambda c: c.reported and c.unreported),
    Rule("failed", "oom_runner", lambda c: _died_reported(c) and c.worker_oom),
    Rule("failed", "disk_full", lambda c: _died_reported(c) and c.disk_full),
    Rule("failed", "worker_crash", lambda c: _died_reported(c)),
    Rule("failed", "oom_job", lambda c: c.reported == "Failed" and c.oom),
    Rule("failed", "disk_full", lambda c: c.reported == "Failed" and c.disk_full),
    Rule("failed", "setup_failed", lambda c: c.reported == "Failed" and c.setup_failed),
    Rule("failed", "failure", lambda c: c.reported == "Failed"),
    Rule("cancelled", "cancelled", lambda c: c.reported == "Skipped"),
    Rule("succeeded", "success", lambda c: c.reported),
    # From here on nobody reported a result.
    Rule("unknown", "machine_restarted", lambda c: c.runner_exit.boot_changed),
    Rule("cancelled", None, lambda c: c.job_seen and c.runner_exit.stopped_by),
    Rule("unknown", "oom_runner", lambda c: c.worker_crashed and c.worker_oom),
    Rule("unknown", "oom_runner", lambda c: c.runner_exit.killed and c.oom),
    Rule("unknown", None, lambda c: c.stop),
    Rule(
        "unknown",
        "version_deprecated",
        lambda c: (
            c.evidence.saw(signs.VersionDeprecated) or c.runner_exit.exit_code == 7
        ),
    ),
    Rule("unknown", "disk_full", lambda c: c.job_seen and c.disk_full),
    Rule("unknown", "runner_crash", lambda c: c.runner_exit.orphaned),
    Rule("unknown", "runner_crash", lambda c: c.job_seen and c.runner_exit.signal),
    Rule("unknown", "worker_crash", lambda c: c.worker_crashed),
    Rule("unknown", "runner_crash", lambda c: c.job_seen),
    Rule("unknown", "unknown", lambda c: True),
]


def _died_reported(case: Case) -> bool:
    """Whether the Worker died and the Listener reported the job for it."""
    return case.worker_crashed and case.reported is not None


def verdict(evidence: Evidence, runner_exit: RunnerExit) -> Verdict:
    """What became of the job; every evidence leads to exactly one verdict."""
    case = Case(evidence, runner_exit)
    rule = next(rule for rule in RULES if rule.applies(case))
    result = rule.result or _NAMES.get(case.reported or "", "unknown")
    cause = rule.cause or case.stop or "unknown"
    # A Worker that exits with 0 has reported no result: that is no exit code of a job.
    code = 0 if result == "succeeded" else runner_exit.worker_status or None
    return Verdict(result, cause, code, tuple(reasons(case)))


def reasons(case: Case) -> Iterator[str]:
    """The grounds of a verdict, one phrase each."""
    evidence = case.evidence
    yield from _end_of_worker(case)
    for source, result in sorted(evidence.results.items()):
        yield f"result {result} ({source})"
    if not evidence.results:
        yield "no result reported"
    yield _end_of_listener(case.runner_exit)
    for kind, phrase in _PHRASES.items():
        if evidence.saw(kind):
            yield ": ".join(filter(None, (phrase, evidence.text(kind))))
    yield from _circumstances(case)


def _circumstances(case: Case) -> Iterator[str]:
    runner_exit = case.runner_exit
    if runner_exit.orphaned:
        yield "the listener ended before its worker"
    if runner_exit.worker_stuck:
        yield "worker killed by MIGlet: it did not begin, or not end"
    if runner_exit.stopped_by:
        yield f"stopped by MIGlet: {runner_exit.stopped_by}"
    if case.oom:
        yield f"out-of-memory kills during the job: {runner_exit.oom_kill_delta}"
    if case.disk_full and runner_exit.disk_free_bytes is not None:
        yield f"disk free bytes: {runner_exit.disk_free_bytes}"
    if runner_exit.boot_changed:
        yield "the machine was started again"


def _end_of_worker(case: Case) -> Iterator[str]:
    runner_exit = case.runner_exit
    if runner_exit.worker_signal is not None:
        yield f"worker ended by signal {runner_exit.worker_signal}"
    elif runner_exit.worker_exit_code is not None:
        yield f"worker exited with {runner_exit.worker_exit_code}"
    elif case.job_seen:
        yield STATUS_UNKNOWN
        if case.evidence.worker_code is not None:
            yield f"worker exited with {case.evidence.worker_code} (runner_log)"


def _end_of_listener(runner_exit: RunnerExit) -> str:
    if runner_exit.signal is not None:
        return f"listener ended by signal {runner_exit.signal}"
    if runner_exit.exit_code is not None:
        return f"listener exited with {runner_exit.exit_code}"
    return "listener has not ended, or it is not known how"


_PHRASES: dict[type[signs.Sign], str] = {
    signs.JobRunning: "job was running",
    signs.StepsBegan: "steps had begun",
    signs.HookStarted: "started hook ran",
    signs.HookCompleted: "completed hook ran",
    signs.HookRefused: "hook report refused",
    signs.ResultIgnored: "a result was claimed before the worker's end and ignored",
    signs.CancelReceived: "cancel received",
    signs.ShutdownSignalled: "shutdown signalled to the listener",
    signs.ShutdownReceived: "shutdown signalled to the worker",
    signs.JobSkipped: "job could not be acquired",
    signs.RegistrationGone: "registration gone",
    signs.VersionDeprecated: "version deprecated",
    signs.DiskFull: "no space left on device",
    signs.RunnerFailed: "listener failed",
}


# Whether the end of a Listener without a job was in order, and what the next step is.
# How often it is taken is the caller's to limit: the runner itself sets no limit.

#: The next step: start the Listener again with the registration it has, register
#: anew with a fresh token, or neither, because it cannot help.
RELAUNCH, REREGISTER, GIVE_UP = "relaunch", "reregister", "give_up"


@frozen_value
class Crash(Value):
    """A Listener's end that was not in order."""

    #: What it was, e.g. `version_deprecated`; see CRASHES.
    kind: str
    next_step: str
    #: Whether something broke (a `RunnerCrashed` event is due), or merely ended.
    abnormal: bool
    #: One sentence for people.
    reason: str


class Kind(NamedTuple):
    """If `applies`, the Listener's end was of this kind."""

    kind: str
    next_step: str
    abnormal: bool
    applies: Callable[[Case], object]


def _saw(*kinds: type[signs.Sign]) -> Callable[[Case], bool]:
    return lambda case: any(case.evidence.saw(kind) for kind in kinds)


def _exited(*codes: int) -> Callable[[Case], bool]:
    return lambda case: case.runner_exit.exit_code in codes


def _lost_job(case: Case) -> bool:
    return case.job_seen and not case.reported


#: The first that applies decides (actions/runner Constants.cs, Runner.cs). After a
#: job's loss the registration is spent. A session conflict, a network that is down and
#: a deprecated version, which services have claimed by mistake, may pass with time.
CRASHES = [
    Kind("worker_crash", REREGISTER, True, lambda c: c.worker_crashed),
    Kind("ghost", REREGISTER, False, lambda c: c.ghost),
    Kind(
        "version_deprecated",
        RELAUNCH,
        False,
        lambda c: (
            c.evidence.saw(signs.VersionDeprecated) or c.runner_exit.exit_code == 7
        ),
    ),
    Kind("runner_crash", REREGISTER, True, _lost_job),
    Kind(
        "registration_gone",
        REREGISTER,
        False,
        _saw(signs.RegistrationGone, signs.OAuthRevoked, signs.RegistrationRemoved),
    ),
    Kind("not_configured", REREGISTER, False, _saw(signs.NotConfigured)),
    Kind("session_conflict", RELAUNCH, False, _exited(5)),
    Kind("retryable", RELAUNCH, True, _exited(2)),
    Kind("updating", RELAUNCH, False, _exited(3, 4)),
    Kind("not_executable", GIVE_UP, True, _exited(126, 127)),
    # Revoked credentials and a removed registration may end it without a word.
    Kind("ended_without_job", REREGISTER, False, _exited(0)),
    Kind("terminated", REREGISTER, True, _exited(1)),
    Kind("runner_crash", RELAUNCH, True, lambda c: True),
]


def crash(runner_exit: RunnerExit, evidence: Evidence) -> Crash | None:
    """What was wrong with the Listener's end; None: nothing.

    In order are a job whose result was reported, and an end that we asked for.
    """
    case = Case(evidence, runner_exit)
    if runner_exit.stopped_by or (case.reported and not case.worker_crashed):
        return None
    kind = next(kind for kind in CRASHES if kind.applies(case))
    reason = "; ".join(verdict(evidence, runner_exit).reasons)
    return Crash(kind.kind, kind.next_step, kind.abnormal, reason)
