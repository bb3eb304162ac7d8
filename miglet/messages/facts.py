"""Every fact that a worker, the system or a timer tells the arbiter.

A fact is past tense and complete in itself: it says what was seen, not what is to be
done about it. What follows from it is in the table of the lifecycle.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, TypedDict

from miglet.errors import MISCONFIGURED
from miglet.messages.codec import (
    AtLeast,
    Depth,
    ExitStatus,
    Fact,
    Keys,
    Name,
    OneOf,
    Range,
    Seconds,
    SequenceNumber,
    WallTime,
    frozen_value,
)
from miglet.messages.events import JobIdentity

#: The longest that a worker may be silent if it says so: twice the longest request.
LONGEST_LIVENESS_TIMEOUT = 1800.0

#: The category of an error, as the contract has it.
Category = Annotated[
    str, OneOf(("transient", "infrastructure", "permanent", "misconfig", "user"))
]

#: How deep the parameters of a command may be nested.
PARAMETERS_DEPTH = 20

#: Seconds that two clocks differ by: each may show any year from 1 to 9999.
ClockOffset = Annotated[float, Range(-1e12, 1e12)]


class SettingFault(TypedDict):
    """One mistake in the configuration; the fields of `miglet.errors.Fault`."""

    key: str
    source: str
    reason: str
    hint: str


class CheckRow(TypedDict):
    """What one preflight check found."""

    id: Name
    status: Annotated[str, OneOf(("ok", "warn", "fail"))]
    milliseconds: float
    detail: str
    hint: str
    category: Annotated[str, OneOf(("", *Category.__metadata__[0].texts))]


class MachineDescription(TypedDict):
    """What VMStarted says of the machine; null is what is not known."""

    version: str
    boot_id: str
    cloud: str | None
    zone: str | None
    machine_type: str | None
    image: str | None
    instance_name: str | None
    hostname: str | None
    cpu_count: int | None
    memory_bytes: int | None
    disk_bytes: int | None
    runner_version: str | None
    timeline: dict[str, float]


class RunnerIdentity(TypedDict):
    """What every description of a run has."""

    run_id: Name
    name: str


class RunnerDescription(RunnerIdentity, total=False):
    """A run as the runner-watcher describes it."""

    pid: int
    start_time: float
    unit: str | None
    folder: str
    version: str | None
    agent_id: int | None
    labels: list[str]
    runner_group: str | None
    runner_url: str | None
    attempts: int
    began: float
    adopted: bool


class EvidenceDocument(TypedDict):
    """The JSON form of `miglet.job.evidence.Evidence`."""

    hooks_expected: bool
    first: dict[str, WallTime]
    sources: dict[str, str]
    results: dict[str, str]
    identity: Annotated[dict[str, Any], Keys(JobIdentity)]
    described_by: dict[str, str]
    texts: dict[str, str]
    worker_code: int | None
    version: str | None


class RunnerEnd(TypedDict, total=False):
    """The JSON form of `miglet.job.verdict.RunnerExit`."""

    exit_code: int | None
    signal: int | None
    known: bool
    worker_exit_code: int | None
    worker_signal: int | None
    orphaned: bool
    worker_stuck: bool
    stopped_by: str | None
    oom_kill_delta: int
    disk_free_bytes: int | None
    boot_changed: bool
    ghost: bool


class CrashDescription(TypedDict):
    """How a Worker or Listener ended abnormally."""

    exit_code: int | None
    signal: int | None
    last_lines: list[str]


class ResourceUsage(TypedDict, total=False):
    """What a job's processes have used: the keys of ``resource_usage``."""

    cpu_seconds: float | None
    max_memory_bytes: int | None
    io_read_bytes: int | None
    io_write_bytes: int | None


Usage = Annotated[dict[str, Any], Keys(ResourceUsage)]


@frozen_value
class LivenessPing(Fact):
    """The worker lives, and may be silent for `timeout_seconds` from now."""

    timeout_seconds: Annotated[float, Range(0, LONGEST_LIVENESS_TIMEOUT)]


# The bootstrap and the supervisor.


@frozen_value
class SettingsLoaded(Fact):
    """The configuration is valid."""

    settings: dict[str, Any] = field(repr=False)
    #: What ``miglet-ctl config`` shows: key, value (masked), source, overrode.
    origins: list[dict[str, Any]] = field(repr=False)


@frozen_value
class SettingsRefused(Fact):
    """The configuration cannot be used; each fault has key, source, reason, hint."""

    faults: Annotated[list[Annotated[dict[str, Any], Keys(SettingFault)]], AtLeast(1)]
    #: Enough to tell the controller, or null when endpoint or identity is unknown.
    settings: dict[str, Any] | None = field(default=None, repr=False)
    #: What MIGlet exits with: another when only the metadata could not be had.
    exit_status: ExitStatus = MISCONFIGURED


@frozen_value
class PreflightDone(Fact):
    """Every check has been made; `machine` says what this is."""

    report: list[Annotated[dict[str, Any], Keys(CheckRow)]]
    machine: Annotated[dict[str, Any], Keys(MachineDescription, closed=True)]


@frozen_value
class WorkerStarted(Fact):
    """A worker was forked and knows nothing yet of what it is to do."""

    worker: str
    pid: int
    restarts: int
    #: Deaths of its predecessors in a row; one that lived long enough starts at 0.
    deaths: int = 0


@frozen_value
class WorkerLost(Fact):
    """A worker keeps dying; it is tried again, slowly, for ever."""

    worker: str
    deaths: int
    reason: str


@frozen_value
class WorkerRecovered(Fact):
    """A worker that kept dying has lived long enough to be trusted again."""

    worker: str


@frozen_value
class SignalReceived(Fact):
    """The operating system, an operator or systemd sent a signal."""

    name: str


@frozen_value
class DeadlinePassed(Fact):
    """A timer that the arbiter set has run out."""

    name: str


# The heartbeat-sender: the one uplink.


@frozen_value
class EventDelivered(Fact):
    """The controller has acknowledged the event."""

    sequence: SequenceNumber
    type: str


@frozen_value
class EventRefused(Fact):
    """The controller will never take this event; its answer says why."""

    sequence: SequenceNumber
    type: str
    status: int
    answer: str


@frozen_value
class EventSetAside(Fact):
    """The event alone fails while heartbeats are accepted: the next one is sent."""

    cost = 200
    sequence: SequenceNumber
    type: str
    #: Of an ``Error`` event its code, else empty.
    code: str
    reason: str
    #: Whether this was the last try, before VMStopped.
    last: bool = False


@frozen_value
class CredentialsRenewed(Fact):
    """A request with the new credential was accepted, or `reason` says why not."""

    command_id: str
    reason: str | None


@frozen_value
class ControllerAnswered(Fact):
    """A call was answered as it should be."""

    call: str
    #: Seconds that the controller's clock is ahead of ours; null if unknown.
    clock_offset_seconds: ClockOffset | None = None


@frozen_value
class ControllerFailed(Fact):
    """A call led to no usable answer; it is tried again in `retry_in_seconds`."""

    call: str
    category: Category
    reason: str
    retry_in_seconds: Seconds


# The runner-watcher.


@frozen_value
class TokenSpent(Fact):
    """A registration token is about to be used; reported so that none is used twice."""

    sha256: str


@frozen_value
class RunnerLaunched(Fact):
    """The listener runs: `runner` has run_id, name, pid, start_time, version."""

    runner: Annotated[dict[str, Any], Keys(RunnerDescription)]


@frozen_value
class RunnerListening(Fact):
    """The listener is connected and waits for a job."""

    runner: Annotated[dict[str, Any], Keys(RunnerDescription)]
    attempts: int
    duration_seconds: Seconds
    adopted: bool = False


@frozen_value
class JobSeen(Fact):
    """The first sign of a job, from `source`, at wall time `seen_at`.

    Precedes every other fact about the job; a watcher that adopts a run sends it again.
    """

    run_id: str
    source: str
    seen_at: WallTime


@frozen_value
class JobIdentified(Fact):
    """More is known about the job; nulls are not known yet."""

    run_id: str
    source: str
    identity: Annotated[dict[str, Any], Keys(JobIdentity)]


@frozen_value
class JobSampled(Fact):
    """What the job's processes have used so far."""

    run_id: str
    usage: Usage


@frozen_value
class JobEnded(Fact):
    """The job's Worker has ended and this is the verdict; sent once per job.

    It precedes the `RunnerExited` of its run, and does not wait for it.
    """

    run_id: str
    #: The result that GitHub has: succeeded, failed, cancelled, abandoned or unknown.
    result: str
    cause: str
    #: 0 for a success, else the Worker's status; null when it is not known.
    exit_code: int | None
    #: Wall time of the Worker's end.
    finished_at: WallTime
    #: The grounds of the verdict, one phrase each.
    evidence: list[str]
    resource_usage: Usage
    #: Set when Worker or Listener ended abnormally: `exit_code`, `signal`,
    #: `last_lines`, as `RunnerCrashed` reports them.
    crash: Annotated[dict[str, Any], Keys(CrashDescription)] | None = None


@frozen_value
class ListenerDied(Fact):
    """The Listener is gone while its Worker lives on and finishes the job.

    `JobEnded` and `RunnerExited` follow when the Worker has ended.
    """

    run_id: str
    exit_code: int | None
    signal: int | None
    last_lines: list[str]
    #: Whether the job goes on; false when it is killed with its Listener.
    job_continues: bool = True


@frozen_value
class RunnerExited(Fact):
    """The run is over: Listener and Worker are gone, and with them what they left.

    Ends the job, too, if no `JobEnded` came before.
    """

    run_id: str
    evidence: Annotated[dict[str, Any], Keys(EvidenceDocument)]
    runner_exit: Annotated[dict[str, Any], Keys(RunnerEnd)]
    usage: Usage
    last_lines: list[str]


@frozen_value
class RunnerFailing(Fact):
    """The runner lives but does not work.

    Without a job (`ghost`, a lasting loss of connection) the run is replaced. With a
    job the only code is `worker_stuck`: the watcher kills the Worker right after this
    fact, and `JobEnded` follows.
    """

    run_id: str
    code: str
    message: str


@frozen_value
class RegistrationFailed(Fact):
    """No runner can be registered; trying again now would not help."""

    category: Category
    code: str
    message: str
    hint: str
    exit_status: ExitStatus


@frozen_value
class FaultNoted(Fact):
    """Something notable went wrong that its finder gets over by itself."""

    cost = 200
    category: Category
    code: str
    message: str
    component: str
    hint: str = ""


@frozen_value
class RunnerRemoved(Fact):
    """The answer to `StopRunner`: the run is over, and its registration dealt with."""

    #: For people.
    detail: str
    #: ``removed``, ``not_registered``, ``left_to_controller`` or ``failed``.
    removal: str = "failed"


# The metrics-sampler.


@frozen_value
class MachineSampled(Fact):
    """The heartbeat's ``vm_health``, which fits into a heartbeat with all the rest."""

    size_limit = 32 * 1024
    cost = 80
    vm_health: dict[str, Any]


# The command-poller, and the child that validates a command.


@frozen_value
class CommandReceived(Fact):
    """A command of the controller, not yet validated: anything in it may be wrong."""

    cost = 100
    id: Name
    type: Name
    parameters: Annotated[dict[str, Any], Depth(PARAMETERS_DEPTH)] = field(repr=False)
    #: Wall time in seconds; null: never.
    expires_at: WallTime | None = None
    #: Why it cannot be obeyed, known from its form alone.
    faults: list[str] = field(default_factory=list)


@frozen_value
class CommandValidated(Fact):
    """The command is well-formed, `faults` says why it is refused, or `failure` why
    nobody could tell.
    """

    id: str
    type: str
    parameters: dict[str, Any] = field(repr=False)
    faults: list[str] = field(default_factory=list)
    #: For UpdateConfig and a reload: the settings as they would be.
    settings: dict[str, Any] | None = field(default=None, repr=False)
    origins: list[dict[str, Any]] | None = field(default=None, repr=False)
    #: Who asked: ``controller``, ``operator (uid 0)``, ``signal``.
    requested_by: str = "controller"
    #: Why the validation gave no result, which is no fault of the command; else empty.
    failure: str = ""


# A child task that acts in the place of a lost runner-watcher.


@frozen_value
class RunKilled(Fact):
    """The processes of a run were killed, as `outcome` says."""

    run_id: str
    outcome: str


# The child task that writes to `shutdown.last_resort`.


@frozen_value
class EventsWritten(Fact):
    """So many undelivered events were written; `reason` says why not all, if so."""

    count: int
    reason: str


# What the arbiter tells itself.


@frozen_value
class StartContinued(Fact):
    """This boot was begun by another MIGlet, and the settings are loaded."""


@frozen_value
class EventsFlushed(Fact):
    """No event is left to deliver."""


# The notice-watcher.


@frozen_value
class ControllerTokenTaken(Fact):
    """The controller's token came by metadata, or is another now; it is in its file."""

    cost = 800


@frozen_value
class TerminationNoticed(Fact):
    """The cloud announced the end of this machine."""

    cost = 200
    #: E.g. ``preempted``, ``spot_instance_action``; the name of the announcement.
    kind: str
    #: Wall time at which the machine ends; null when the cloud does not say.
    deadline: WallTime | None
    source: str


# Types that are sent together.

#: What a call to the controller leads to, whichever worker makes it.
CALL_FACTS = frozenset({ControllerAnswered, ControllerFailed, FaultNoted})

#: What the observer of a run reports.
RUN_FACTS = frozenset(
    {
        RunnerListening,
        JobSeen,
        JobIdentified,
        JobSampled,
        JobEnded,
        ListenerDied,
        RunnerExited,
        RunnerFailing,
    }
)
