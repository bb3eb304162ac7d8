"""Every event that is sent to the controller, one class each.

An event is a fact that somebody outside wants to know. Its fields are the keys of
``data``; identity, order and time are the envelope's and are added once, in `seal`.
"""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any, NamedTuple

from miglet.formats import rfc3339
from miglet.messages.codec import Value, frozen_value, named_value

#: Every event by its wire name, filled as the classes below are defined.
EVENTS: dict[str, type[Event]] = {}


class Event(Value):
    """A report to the controller; the class's name is the wire name."""

    def __init_subclass__(cls) -> None:
        EVENTS[cls.__name__] = cls

    @property
    def type(self) -> str:
        """The wire name."""
        return type(self).__name__

    def payload(self) -> dict[str, Any]:
        """The event's ``data``."""
        return {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)  # type: ignore[arg-type]
        }


class Identity(NamedTuple):
    """Who speaks: the part of every envelope that stays the same for one boot."""

    vm_id: str
    pool_id: str
    org_id: str
    #: 32 hex digits; replaced by the job's own while there is one.
    trace_id: str


@named_value
class JobDescription(Value):
    """What a job is called; None where nobody said.

    `name` is the workflow author's text: for people only, never to be trusted.
    """

    name: str | None = None
    repository: str | None = None
    workflow: str | None = None
    ref: str | None = None
    commit: str | None = None
    run_attempt: int | None = None
    actor: str | None = None
    event_name: str | None = None


@named_value
class JobIdentity(JobDescription):
    """Which job it is; the two ids have places of their own in every event."""

    #: GitHub's numeric id of the job (`check_run_id`), as text.
    job_id: str | None = None
    #: The workflow run's id, as text.
    run_id: str | None = None


#: What describes a job.
DESCRIPTION_KEYS = tuple(each.name for each in dataclasses.fields(JobDescription))


class JobReference(NamedTuple):
    """Which job an envelope speaks of."""

    job_id: str | None
    run_id: str | None
    trace_id: str


def seal(
    event: Event,
    identity: Identity,
    job: JobReference | None,
    state: str,
    at: float,
) -> dict[str, Any]:
    """The event in its envelope, still without the sequence that the journal gives."""
    return {
        "schema": 1,
        "id": str(uuid.uuid4()),
        "sequence": None,
        "type": event.type,
        "timestamp": rfc3339(at),
        "vm_id": identity.vm_id,
        "pool_id": identity.pool_id,
        "org_id": identity.org_id,
        "job_id": job.job_id if job else None,
        "run_id": job.run_id if job else None,
        "trace_id": job.trace_id if job else identity.trace_id,
        "state": state,
        "data": event.payload(),
        "metadata": {},
    }


@frozen_value
class VMStarted(Event):
    """The bootstrap passed. Once per boot; acknowledged, the VM may register."""

    version: str
    boot_id: str
    cloud: str | None
    zone: str | None
    machine_type: str | None
    image: str | None
    cpu_count: int | None
    memory_bytes: int | None
    disk_bytes: int | None
    runner_version: str | None
    preflight: list[dict[str, Any]]
    timeline: dict[str, float]
    instance_name: str | None = None
    hostname: str | None = None


@frozen_value
class RunnerRegistered(Event):
    """The listener is connected and waits for a job."""

    runner_name: str
    runner_id: int | None
    runner_version: str | None
    labels: list[str]
    runner_group: str | None
    runner_url: str | None
    attempts: int
    duration_seconds: float
    timeline: dict[str, float]


@frozen_value
class JobStarted(JobDescription, Event):
    """A job is on the machine. Once per job, with what is known of it by then."""

    #: Its source: output, runner_log, worker_log, hook or perflog.
    source: str


@frozen_value
class JobHeartbeat(JobDescription, Event):
    """The job still runs. Not journalled: its sequence is null."""

    elapsed_seconds: float
    resource_usage: dict[str, Any]
    #: running, stopping (a stop was ordered) or orphaned (its Listener died).
    status: str = "running"


@frozen_value
class JobCompleted(Event):
    """The job is over. Exactly one for each JobStarted."""

    #: succeeded, failed, cancelled, abandoned or unknown.
    result: str
    #: Why, so that infrastructure deaths and only those are run again.
    cause: str
    exit_code: int | None
    started_at: str
    finished_at: str
    duration_seconds: float
    #: cpu_seconds, max_memory_bytes, io_read_bytes, io_write_bytes; nulls: unknown.
    resource_usage: dict[str, Any]
    repository: str | None
    workflow: str | None
    ref: str | None
    commit: str | None
    run_attempt: int | None
    evidence: list[str]


@frozen_value
class RunnerCrashed(Event):
    """The listener or its worker ended as it should not."""

    exit_code: int | None
    signal: int | None
    last_lines: list[str]
    attempt: int
    will_retry: bool


@frozen_value
class TerminationNotice(Event):
    """The cloud has announced the end of this machine."""

    kind: str
    deadline: str | None
    source: str


@frozen_value
class VMShuttingDown(Event):
    """The end is decided; the runner takes no further job."""

    #: What ended the machine: a code, or the code of the Error that did.
    reason: str
    #: miglet, controller, operator, signal or cloud.
    requested_by: str
    uptime_seconds: float
    #: Free text, e.g. the reason that an operator gave.
    detail: str | None = None


@frozen_value
class VMStopped(Event):
    """The last event of a boot: the runner is gone and nothing follows."""

    reason: str
    requested_by: str
    uptime_seconds: float
    #: removed, not_registered, left_to_controller or failed.
    removal: str
    #: Whether the registration is known to be gone; None: not known.
    runner_removed: bool | None
    #: Events dropped since the journal was made.
    events_dropped: int


@frozen_value
class Error(Event):
    """A terminal or notable fault."""

    #: transient, infrastructure, permanent, misconfig or user.
    category: str
    code: str
    message: str
    component: str
    hint: str = ""


@frozen_value
class CommandCompleted(Event):
    """A command was obeyed or refused. Exactly one for each command."""

    command_id: str
    command_type: str
    #: done, rejected or failed.
    outcome: str
    reason: str | None = None
