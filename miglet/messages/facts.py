"""Every fact that a worker, the system or a timer tells the arbiter.

A fact is past tense and complete in itself: it says what was seen, not what is to be
done about it. What follows from it is in the table of the lifecycle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from miglet.errors import MISCONFIGURED
from miglet.messages.codec import Fact


@dataclass(frozen=True, repr=False, eq=False)
class Pulse(Fact):
    """The worker lives; it may be silent for `patience` seconds from now."""

    patience: float


# The bootstrap and the supervisor.


@dataclass(frozen=True, repr=False, eq=False)
class SettingsLoaded(Fact):
    """The configuration is valid."""

    settings: dict[str, Any] = field(repr=False)
    #: What ``miglet-ctl config`` shows: key, value (masked), source, overrode.
    origins: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True, repr=False, eq=False)
class SettingsRefused(Fact):
    """The configuration cannot be used; each fault has key, source, reason, hint."""

    faults: list[dict[str, Any]]
    #: Enough to tell the controller, or null when endpoint or identity is unknown.
    settings: dict[str, Any] | None = field(default=None, repr=False)
    #: What MIGlet exits with: another when only the metadata could not be had.
    exit_status: int = MISCONFIGURED


@dataclass(frozen=True, repr=False, eq=False)
class PreflightDone(Fact):
    """Every check has been made; `machine` says what this is."""

    report: list[dict[str, Any]]
    machine: dict[str, Any]


@dataclass(frozen=True, repr=False, eq=False)
class WorkerStarted(Fact):
    """A worker was forked and knows nothing yet of what it is to do."""

    worker: str
    pid: int
    restarts: int
    #: Deaths of its predecessors in a row; one that lived long enough starts at 0.
    deaths: int = 0


@dataclass(frozen=True, repr=False, eq=False)
class WorkerLost(Fact):
    """A worker keeps dying; it is tried again, slowly, for ever."""

    worker: str
    deaths: int
    reason: str


@dataclass(frozen=True, repr=False, eq=False)
class WorkerRecovered(Fact):
    """A worker that kept dying has lived long enough to be trusted again."""

    worker: str


@dataclass(frozen=True, repr=False, eq=False)
class SignalReceived(Fact):
    """The operating system, an operator or systemd sent a signal."""

    name: str


@dataclass(frozen=True, repr=False, eq=False)
class DeadlinePassed(Fact):
    """A timer that the arbiter set has run out."""

    name: str


# The heartbeat-sender: the one uplink.


@dataclass(frozen=True, repr=False, eq=False)
class EventDelivered(Fact):
    """The controller has acknowledged the event."""

    sequence: int
    type: str


@dataclass(frozen=True, repr=False, eq=False)
class EventRefused(Fact):
    """The controller will never take this event; its answer says why."""

    sequence: int
    type: str
    status: int
    answer: str


@dataclass(frozen=True, repr=False, eq=False)
class EventSetAside(Fact):
    """The event alone fails while heartbeats are accepted: the next one is sent."""

    sequence: int
    type: str
    #: Of an ``Error`` event its code, else empty.
    code: str
    reason: str
    #: Whether this was the last try, before VMStopped.
    last: bool = False


@dataclass(frozen=True, repr=False, eq=False)
class ControllerAnswered(Fact):
    """A call was answered as it should be."""

    call: str
    #: Seconds that the controller's clock is ahead of ours; null if unknown.
    clock_offset_seconds: float | None = None


@dataclass(frozen=True, repr=False, eq=False)
class ControllerFailed(Fact):
    """A call led to no usable answer; it is tried again in `retry_in_seconds`."""

    call: str
    category: str
    reason: str
    retry_in_seconds: float


# The runner-watcher.


@dataclass(frozen=True, repr=False, eq=False)
class TokenSpent(Fact):
    """A registration token is about to be used; told so that none is used twice."""

    sha256: str


@dataclass(frozen=True, repr=False, eq=False)
class RunnerLaunched(Fact):
    """The listener runs: `runner` has run_id, name, pid, start_time, version."""

    runner: dict[str, Any]


@dataclass(frozen=True, repr=False, eq=False)
class RunnerListening(Fact):
    """The listener is connected and waits for a job."""

    runner: dict[str, Any]
    attempts: int
    duration_seconds: float
    adopted: bool = False


@dataclass(frozen=True, repr=False, eq=False)
class JobSeen(Fact):
    """The first sign of a job, from `source`, at wall time `seen_at`.

    Precedes every other fact about the job; a watcher that adopts a run sends it again.
    """

    run_id: str
    source: str
    seen_at: float


@dataclass(frozen=True, repr=False, eq=False)
class JobIdentified(Fact):
    """More is known about the job; nulls are not known yet."""

    run_id: str
    source: str
    identity: dict[str, Any]


@dataclass(frozen=True, repr=False, eq=False)
class JobSampled(Fact):
    """What the job's processes have used so far."""

    run_id: str
    usage: dict[str, Any]


@dataclass(frozen=True, repr=False, eq=False)
class JobResultSeen(Fact):
    """The runner told how the job ended; superseded by `JobEnded`."""

    run_id: str
    evidence: dict[str, Any]
    ending: dict[str, Any]
    usage: dict[str, Any]
    last_lines: list[str]


@dataclass(frozen=True, repr=False, eq=False)
class JobEnded(Fact):
    """The job's Worker has ended and this is the verdict; sent once per job.

    It precedes the `RunnerExited` of its run, and does not wait for it.
    """

    run_id: str
    #: What GitHub was told: succeeded, failed, cancelled, abandoned or unknown.
    result: str
    cause: str
    #: 0 for a success, else the Worker's status; null when it is not known.
    exit_code: int | None
    #: Wall time of the Worker's end.
    finished_at: float
    #: The grounds of the verdict, one phrase each.
    evidence: list[str]
    resource_usage: dict[str, Any]
    #: Set when Worker or Listener ended abnormally: `exit_code`, `signal`,
    #: `last_lines`, as `RunnerCrashed` reports them.
    crash: dict[str, Any] | None = None


@dataclass(frozen=True, repr=False, eq=False)
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


@dataclass(frozen=True, repr=False, eq=False)
class RunnerExited(Fact):
    """The run is over: Listener and Worker are gone, and with them what they left.

    Ends the job, too, if no `JobEnded` came before.
    """

    run_id: str
    evidence: dict[str, Any]
    ending: dict[str, Any]
    usage: dict[str, Any]
    last_lines: list[str]


@dataclass(frozen=True, repr=False, eq=False)
class RunnerTroubled(Fact):
    """The runner lives but does not work.

    Without a job (`ghost`, a lasting loss of connection) the run is replaced. With a
    job the only code is `worker_stuck`: the watcher kills the Worker right after this
    fact, and `JobEnded` follows.
    """

    run_id: str
    code: str
    message: str


@dataclass(frozen=True, repr=False, eq=False)
class RegistrationFailed(Fact):
    """No runner can be registered; trying again now would not help."""

    category: str
    code: str
    message: str
    hint: str
    exit_status: int


@dataclass(frozen=True, repr=False, eq=False)
class FaultNoted(Fact):
    """Something notable went wrong that its finder gets over by itself."""

    category: str
    code: str
    message: str
    component: str
    hint: str = ""


@dataclass(frozen=True, repr=False, eq=False)
class RunnerRemoved(Fact):
    """The answer to `StopRunner`: the run is over, and its registration dealt with."""

    #: For people.
    detail: str
    #: ``removed``, ``not_registered``, ``left_to_controller`` or ``failed``.
    removal: str = "failed"


# The metrics-sampler.


@dataclass(frozen=True, repr=False, eq=False)
class MachineSampled(Fact):
    """The heartbeat's ``vm_health``."""

    vm_health: dict[str, Any]


# The command-poller, and the child that examines a command.


@dataclass(frozen=True, repr=False, eq=False)
class CommandReceived(Fact):
    """The controller wants something; not yet examined, so anything may be wrong."""

    id: str
    type: str
    parameters: dict[str, Any] = field(repr=False)
    #: Wall time in seconds; null: never.
    expires_at: float | None = None
    #: Why it cannot be obeyed, known from its form alone.
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, repr=False, eq=False)
class CommandExamined(Fact):
    """The command is well-formed, or `faults` says why it is refused."""

    id: str
    type: str
    parameters: dict[str, Any] = field(repr=False)
    faults: list[str] = field(default_factory=list)
    #: For UpdateConfig and a reload: the settings as they would be.
    settings: dict[str, Any] | None = field(default=None, repr=False)
    origins: list[dict[str, Any]] | None = field(default=None, repr=False)
    #: Who asked: ``controller``, ``operator (uid 0)``, ``signal``.
    requested_by: str = "controller"


# What the arbiter tells itself.


@dataclass(frozen=True, repr=False, eq=False)
class StartAcknowledged(Fact):
    """The controller acknowledged this boot before MIGlet was started again."""


@dataclass(frozen=True, repr=False, eq=False)
class EventsFlushed(Fact):
    """No event is left to deliver."""


@dataclass(frozen=True, repr=False, eq=False)
class TerminationNoticed(Fact):
    """The cloud announced the end of this machine."""

    #: E.g. ``preempted``, ``spot_instance_action``; the name of the announcement.
    kind: str
    #: Wall time at which the machine ends; null when the cloud does not say.
    deadline: float | None
    source: str


@dataclass(frozen=True, repr=False, eq=False)
class CredentialsRenewed(Fact):
    """A request with the new credential was accepted, or `reason` says why not."""

    command_id: str
    reason: str | None
