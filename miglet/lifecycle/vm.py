"""The machine as the arbiter sees it: one frozen value, and what is kept of it.

Nothing here acts or looks at a clock; a changed machine is a new value.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from miglet.config.settings import Settings
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


#: The cloud's shortest notice is 30 s (GCE): so many of them are kept for the end.
LAST_SECONDS = 15.0

#: How many of them are left when a job that heeds no signal is killed at last.
TELLING_SECONDS = 7.0


@dataclass(frozen=True)
class Policy:
    """The settings that decide what a fact leads to; all times in seconds."""

    after_job: str = "shutdown"
    idle_timeout: float = 0.0
    max_job_duration: float = 0.0
    max_restarts: int = 5
    drain_settle: float = 5.0
    grace_period: float = 30.0
    force_after: float = 300.0
    give_up_after: float = 600.0
    initial_backoff: float = 1.0
    max_backoff: float = 30.0

    @property
    def last_seconds(self) -> float:
        """What stopping a job and telling its end take of a machine's last seconds."""
        return min(self.grace_period + TELLING_SECONDS, LAST_SECONDS)

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy that `settings` describe."""
        return cls(
            after_job=settings.runner.after_job,
            idle_timeout=settings.runner.idle_timeout,
            max_job_duration=settings.runner.max_job_duration,
            max_restarts=settings.runner.max_restarts,
            drain_settle=settings.runner.drain_settle,
            grace_period=settings.shutdown.grace_period,
            force_after=settings.shutdown.force_after,
            give_up_after=settings.controller.give_up_after,
            initial_backoff=settings.controller.retry.initial_backoff,
            max_backoff=settings.controller.retry.max_backoff,
        )


@dataclass(frozen=True)
class Job:
    """The job on the machine, from its first sign on."""

    #: Our run of the runner that took it; also the job's trace id (32 hex digits).
    run: str
    source: str
    #: Wall time of the first sign, and the monotonic time that no clock step changes.
    seen_at: float
    seen_now: float
    #: The fields of `miglet.job.signs.JobIdentity`.
    identity: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    #: Whether its JobStarted is in the journal.
    announced: bool = False

    @property
    def reference(self) -> JobReference:
        """What an envelope says of the job."""
        known = self.identity
        return JobReference(known.get("job_id"), known.get("run_id"), self.run)

    def told(self, *keys: str) -> dict[str, Any]:
        """These parts of its identity, null where unknown."""
        return {key: self.identity.get(key) for key in keys}

    def learnt(self, identity: dict[str, Any]) -> Job:
        """The job with what is newly known; nothing known is forgotten."""
        news = {key: value for key, value in identity.items() if value is not None}
        return dataclasses.replace(self, identity={**self.identity, **news})

    def used(self, usage: dict[str, Any]) -> Job:
        """The job with its usage so far: each figure can only grow."""
        return dataclasses.replace(self, usage=grown(self.usage, usage))


#: The keys of ``resource_usage``; null until something is known.
USAGE = ("cpu_seconds", "max_memory_bytes", "io_read_bytes", "io_write_bytes")


def grown(usage: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """For each key of USAGE the larger of the two, null where neither knows it."""
    pairs = {key: (usage.get(key), more.get(key)) for key in USAGE}
    return {
        key: max((each for each in pair if each is not None), default=None)
        for key, pair in pairs.items()
    }


@dataclass(frozen=True)
class End:
    """Why the machine ends, who wanted it, and what the program exits with."""

    reason: str
    requested_by: str
    exit_status: int = 0
    #: Whether VMShuttingDown is in the journal.
    told: bool = False


@dataclass(frozen=True)
class Vm:
    """The machine. Everything but `policy` and `since` outlives MIGlet."""

    runner_name: str
    policy: Policy = field(default_factory=Policy)
    state: State = State.INITIALIZING
    #: Wall time at which `state` was entered.
    since: float = 0.0
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
    #: Whether RunnerRegistered is in the journal for it, and JobCompleted.
    registered: bool = False
    finished: bool = False
    job: Job | None = None
    #: Ends of the runner without a job, in a row.
    crashes: int = 0
    spent_tokens: tuple[str, ...] = ()
    #: Set as soon as the end is decided, long before it comes.
    end: End | None = None
    #: Why we stopped the runner ourselves: shutdown, timeout, termination_notice.
    stopped_by: str | None = None
    #: The cloud's announcements of the machine's end: kind, and monotonic time or null.
    notices: dict[str, float | None] = field(default_factory=dict)
    signals: int = 0
    #: Milliseconds from the kernel's start to each step of this boot, by its name.
    timeline: dict[str, float] = field(default_factory=dict)
    #: Whether what runs is gone and only events are left to deliver.
    flushing: bool = False

    def having(self, **changes: Any) -> Vm:
        """The machine with these fields changed."""
        return dataclasses.replace(self, **changes)

    def entered(self, state: State, moment: Moment, **changes: Any) -> Vm:
        """The machine in another state."""
        return self.having(state=state, since=moment.at, **changes)

    def marked(self, step: str, moment: Moment) -> Vm:
        """The machine with this step of its boot timed, unless it was before."""
        if step in self.timeline:
            return self
        now = round(moment.now * 1000, 1)
        return self.having(timeline={**self.timeline, step: now})

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the earliest announced end of the machine, if any."""
        dues = [due for due in self.notices.values() if due is not None]
        return min(dues) - now if dues else None

    @property
    def next_name(self) -> str:
        """The name to register next: one that GitHub has not seen from us."""
        if not self.registrations:
            return self.runner_name
        return f"{self.runner_name}-{self.registrations + 1}"

    def kept(self) -> dict[str, Any]:
        """What the journal keeps."""
        kept = dataclasses.asdict(self)
        del kept["policy"]
        return kept

    def worth(self) -> dict[str, Any]:
        """What is worth a write of its own: a job's usage alone is not."""
        kept = self.kept()
        del kept["since"]
        if kept["job"]:
            del kept["job"]["usage"]
        return kept

    @classmethod
    def restored(cls, kept: dict[str, Any], policy: Policy, moment: Moment) -> Vm:
        """The machine as the journal knows it, at the beginning of a new life."""
        known = {each.name for each in dataclasses.fields(cls)} - {"policy"}
        fields = {key: value for key, value in kept.items() if key in known}
        fields |= {
            "job": Job(**kept["job"]) if kept.get("job") else None,
            "end": End(**kept["end"]) if kept.get("end") else None,
            "spent_tokens": tuple(kept.get("spent_tokens", ())),
            "state": State.INITIALIZING,
            "since": moment.at,
            "signals": 0,
            "flushing": False,
        }
        return cls(policy=policy, **fields)
