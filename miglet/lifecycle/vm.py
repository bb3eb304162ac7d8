"""The machine as the arbiter sees it: one frozen value, and what the journal keeps.

Nothing here acts or reads a clock; a changed machine is a new value.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from miglet.config.settings import Settings
from miglet.errors import DONE, INTERNAL, MISCONFIGURED, REFUSED
from miglet.messages.codec import Value, frozen_value
from miglet.messages.events import JobReference


class State(str, enum.Enum):
    """Where in its life the machine is; the values are the wire names."""

    INITIALIZING = "initializing"
    WAITING_FOR_CONTROLLER = "waiting_for_controller"
    REGISTERING_RUNNER = "registering_runner"
    IDLE = "idle"
    JOB_RUNNING = "job_running"
    DRAINING = "draining"
    SHUTTING_DOWN = "shutting_down"
    ERROR = "error"


class Moment(NamedTuple):
    """When a fact reached the arbiter."""

    #: Wall time in seconds.
    at: float
    #: Monotonic seconds since the machine's start; timers and durations use it.
    now: float


#: The cloud's shortest notice is 30 s (GCE): half of it is reserved for the end.
LAST_SECONDS = 15.0

#: Seconds of that which remain for delivery when a job ignores every signal.
DELIVERY_SECONDS = 7.0

#: Seconds of those in which such a job is killed, and its end is seen: without them it
#: would be closed as unknown in the moment in which it is killed.
KILL_SECONDS = 2.0


@frozen_value
class Policy(Value):
    """The settings that decide what a fact leads to; all times in seconds."""

    after_job: str = "shutdown"
    idle_timeout: float = 0.0
    max_job_duration: float = 0.0
    orphan_timeout: float = 600.0
    max_restarts: int = 5
    drain_settle: float = 5.0
    grace_period: float = 30.0
    force_after: float = 300.0
    delivery_timeout: float = 600.0
    give_up_after: float = 600.0
    initial_backoff: float = 1.0
    max_backoff: float = 30.0
    #: Whether a registration token lies in the metadata, so that a machine whose
    #: controller is away can register all the same.
    token_in_metadata: bool = False

    @property
    def last_seconds(self) -> float:
        """Seconds before a machine's announced end at which its job is stopped."""
        return min(self.grace_period + DELIVERY_SECONDS, LAST_SECONDS)

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy that `settings` describe."""
        return cls(
            after_job=settings.runner.after_job,
            idle_timeout=settings.runner.idle_timeout,
            max_job_duration=settings.runner.max_job_duration,
            orphan_timeout=settings.runner.orphan_timeout,
            max_restarts=settings.runner.max_restarts,
            drain_settle=settings.runner.drain_settle,
            grace_period=settings.shutdown.grace_period,
            force_after=settings.shutdown.force_after,
            delivery_timeout=settings.shutdown.delivery_timeout,
            give_up_after=settings.controller.give_up_after,
            initial_backoff=settings.controller.retry.initial_backoff,
            max_backoff=settings.controller.retry.max_backoff,
            token_in_metadata=settings.github.token_source == "metadata",
        )


#: The parts of a job's identity that never change once they are known.
WRITE_ONCE = ("job_id", "run_id", "repository", "run_attempt", "commit")


@dataclass(frozen=True)
class Job:
    """The job on the machine, from its first sign on."""

    #: Our run of the runner that took it; also the job's trace id (32 hex digits).
    run: str
    source: str
    #: Wall time of the first sign, and the monotonic time that no clock step changes.
    seen_at: float
    seen_now: float
    #: Monotonic time at which the arbiter heard of it.
    heard_now: float = 0.0
    #: The fields of `miglet.messages.events.JobIdentity`.
    identity: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    #: Whether its JobStarted is in the journal.
    announced: bool = False
    #: Whether a contradiction to its identity was reported.
    contradicted: bool = False

    @property
    def reference(self) -> JobReference:
        """The job as an envelope refers to it."""
        known = self.identity
        return JobReference(known.get("job_id"), known.get("run_id"), self.run)

    def fields(self, *keys: str) -> dict[str, Any]:
        """These parts of its identity, null where unknown."""
        return {key: self.identity.get(key) for key in keys}

    def learn(self, identity: dict[str, Any]) -> Job:
        """The job with what is newly known; nothing known is forgotten.

        After JobStarted the parts of WRITE_ONCE that are known stay as they are.
        """
        kept = self.contradictions(identity)
        news = {
            key: value
            for key, value in identity.items()
            if value is not None and key not in kept
        }
        return dataclasses.replace(self, identity={**self.identity, **news})

    def contradictions(self, identity: dict[str, Any]) -> list[str]:
        """The keys in which `identity` differs from what was announced."""
        if not self.announced:
            return []
        return [
            key
            for key in WRITE_ONCE
            if identity.get(key) is not None
            and self.identity.get(key) not in (None, identity[key])
        ]

    def add_usage(self, usage: dict[str, Any]) -> Job:
        """The job with its usage so far: each figure can only grow."""
        return dataclasses.replace(self, usage=maximum_usage(self.usage, usage))


#: The keys of ``resource_usage``; null until something is known.
USAGE = ("cpu_seconds", "max_memory_bytes", "io_read_bytes", "io_write_bytes")


def maximum_usage(usage: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """For each key of USAGE the larger of the two, null where neither knows it."""
    pairs = {key: (usage.get(key), more.get(key)) for key in USAGE}
    return {
        key: max((each for each in pair if each is not None), default=None)
        for key, pair in pairs.items()
    }


#: Exit statuses that end the machine for this boot; the service manager restarts the
#: others, and the next start goes on.
FINAL_STATUSES = (DONE, REFUSED, MISCONFIGURED)


@frozen_value
class End(Value):
    """Why the machine ends, who wanted it, and the program's exit status."""

    reason: str
    requested_by: str
    exit_status: int = DONE
    #: Free text: an operator's or a controller's reason, the signal, the notice.
    detail: str | None = None
    #: Whether VMShuttingDown is in the journal.
    announced: bool = False

    @property
    def final(self) -> bool:
        """Whether the machine ends with it, and not only this start."""
        return self.exit_status in FINAL_STATUSES


@frozen_value
class FailedStart(Value):
    """How the start before this one ended, if the service manager repeats it."""

    code: str
    exit_status: int
    #: How many starts in a row ended like the one before them.
    repeats: int = 0


@dataclass(frozen=True)
class Vm:
    """The machine. Everything but `policy` and `resumed_from` outlives MIGlet."""

    runner_name: str
    policy: Policy = field(default_factory=Policy)
    state: State = State.INITIALIZING
    #: Wall and monotonic time at which `state` was entered.
    since: float = 0.0
    since_now: float = 0.0
    #: The state in which a MIGlet of this boot was interrupted; None: it was not.
    resumed_from: State | None = None
    #: How the start before this one failed, until a runner listens.
    failed_start: FailedStart | None = None
    #: Whether VMStarted is in the journal, and whether it was acknowledged.
    announced: bool = False
    acknowledged: bool = False
    #: How often this boot has registered, and the name of the present registration.
    registrations: int = 0
    name: str = ""
    #: The present run: run_id, name, pid, start_time, version, agent_id, …
    runner: dict[str, Any] | None = None
    #: The run before it, whose end is in the journal.
    former_run: str = ""
    #: Whether RunnerRegistered is in the journal for the present registration.
    registered: bool = False
    #: The id that GitHub gave it.
    agent_id: int | None = None
    #: Whether JobCompleted is in the journal for the present run.
    finished: bool = False
    job: Job | None = None
    #: Monotonic time at which the Listener died while its job went on.
    orphaned_since: float | None = None
    #: Ends of the runner without a job, in a row.
    crashes: int = 0
    #: Monotonic times of GitHub's first and last refusal of the runner's version.
    version_refused: tuple[float, float] | None = None
    spent_tokens: tuple[str, ...] = ()
    #: Set as soon as the end is decided, long before it comes.
    end: End | None = None
    #: Why the job is stopped: shutdown, timeout, termination_notice; and since when.
    stopped_by: str | None = None
    stopping_since: float | None = None
    #: The cloud's announcements of the machine's end: kind, and monotonic time or null.
    notices: dict[str, float | None] = field(default_factory=dict)
    signals: int = 0
    #: Monotonic time of the first signal, from which shutdown.force_after counts.
    forced_since: float | None = None
    #: Accepted commands without an answer: their types by their ids.
    commands: dict[str, str] = field(default_factory=dict)
    #: Milliseconds from the kernel's start to each step of this boot, by its name.
    timeline: dict[str, float] = field(default_factory=dict)
    #: Monotonic time from which only events are left to deliver: nothing of ours runs,
    #: and VMStopped, if it is due, is in the journal.
    flushing_since: float | None = None

    @property
    def flushing(self) -> bool:
        """Whether only events are left to deliver."""
        return self.flushing_since is not None

    @property
    def failed_before(self) -> bool:
        """Whether the start before this one ended for the same reason as this one."""
        end, before = self.end, self.failed_start
        return bool(
            end
            and before
            and (end.reason, end.exit_status) == (before.code, before.exit_status)
        )

    def replace(self, **changes: Any) -> Vm:
        """The machine with these fields changed."""
        return dataclasses.replace(self, **changes)

    def enter(self, state: State, moment: Moment, **changes: Any) -> Vm:
        """The machine in another state."""
        return self.replace(
            state=state, since=moment.at, since_now=moment.now, **changes
        )

    def mark(self, step: str, moment: Moment) -> Vm:
        """The machine with this step of its boot timed, unless it was before."""
        if step in self.timeline:
            return self
        now = round(moment.now * 1000, 1)
        return self.replace(timeline={**self.timeline, step: now})

    @property
    def announced_end(self) -> float | None:
        """Monotonic time of the earliest announced end of the machine, if any."""
        dues = [due for due in self.notices.values() if due is not None]
        return min(dues, default=None)

    @property
    def next_name(self) -> str:
        """The name to register next: one that GitHub has not seen from us."""
        if not self.registrations:
            return self.runner_name
        return f"{self.runner_name}-{self.registrations + 1}"

    def to_json(self) -> dict[str, Any]:
        """What the journal keeps."""
        kept = dataclasses.asdict(self)
        del kept["policy"], kept["resumed_from"]
        return kept

    def differs_from(self, before: Vm) -> bool:
        """Whether the change deserves a write; that of a job's usage does not."""
        return self._durable_part() != before._durable_part()

    def _durable_part(self) -> Vm:
        job = self.job and dataclasses.replace(self.job, usage={})
        return self.replace(policy=None, since=0.0, since_now=0.0, job=job)

    @classmethod
    def restore(cls, kept: dict[str, Any], policy: Policy, moment: Moment) -> Vm:
        """The machine as the journal knows it, at the start of another MIGlet."""
        known = {each.name for each in dataclasses.fields(cls)}
        known -= {"policy", "resumed_from"}
        fields = {key: value for key, value in kept.items() if key in known}
        former = State(kept.get("state", State.INITIALIZING))
        refused = kept.get("version_refused")
        failure = kept.get("failed_start")
        fields |= {
            "job": Job(**kept["job"]) if kept.get("job") else None,
            "end": End(**kept["end"]) if kept.get("end") else None,
            "failed_start": FailedStart(**failure) if failure else None,
            "version_refused": tuple(refused) if refused else None,
            "spent_tokens": tuple(kept.get("spent_tokens", ())),
            "state": State.INITIALIZING,
            "since": moment.at,
            "since_now": moment.now,
            "resumed_from": None if former is State.INITIALIZING else former,
            "signals": 0,
        }
        return cls(policy=policy, **fields)

    def after_crash(self) -> Vm:
        """What the next start begins with after a defect ended the program.

        All of it goes on, but a start that fails like the one before is delayed.
        """
        code, before = "internal_error", self.failed_start
        alike = before is not None and before.code == code
        repeats = before.repeats + 1 if before and alike else 0
        return self.replace(failed_start=FailedStart(code, INTERNAL, repeats))

    def for_next_start(self) -> Vm:
        """What the next start of this boot begins with after an end that is no end.

        The service manager starts MIGlet again after such an exit status: VMStarted
        and the names that were registered count for the boot, all else begins anew.
        """
        end = self.end or End("internal_error", "miglet", exit_status=INTERNAL)
        before = self.failed_start
        repeats = before.repeats + 1 if before and self.failed_before else 0
        return Vm(
            self.runner_name,
            failed_start=FailedStart(end.reason, end.exit_status, repeats),
            announced=self.announced,
            acknowledged=self.acknowledged,
            registrations=self.registrations,
            former_run=self.runner["run_id"] if self.runner else self.former_run,
            spent_tokens=self.spent_tokens,
            timeline=self.timeline,
        )
