"""The status of the machine: how it is composed, and how it is published.

Pure functions compose it: ``status`` for people and scripts, the heartbeat, the
snapshot for metrics and systemd's line all come from the same few values.
`StatusPublisher` sends it to workers, systemd and watchers when it has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from miglet import __version__, logger
from miglet.config.settings import Settings
from miglet.control.server import ControlServer
from miglet.formats import rfc3339
from miglet.journal.journal import Counts, Journal
from miglet.lifecycle.vm import USAGE, Job, Moment, State, Vm, maximum_usage
from miglet.messages.events import (
    DESCRIPTION_KEYS,
    Identity,
    JobHeartbeat,
    JobReference,
    seal,
)
from miglet.messages.facts import ControllerAnswered, ControllerFailed
from miglet.messages.orders import FollowJob, ShowStatus, UpdateHeartbeat
from miglet.supervisor.supervisor import Supervisor
from miglet.supervisor.systemd import Notifier
from miglet.workers.registry import UPLINK

#: The heartbeat's ``runner_state`` in each state of the machine.
RUNNER_STATES = {
    State.IDLE: "idle",
    State.JOB_RUNNING: "running",
    State.SHUTTING_DOWN: "stopped",
    State.ERROR: "stopped",
}


@dataclass
class Knowledge:
    """What the arbiter knows besides the machine's state; it is not persisted."""

    settings: Settings
    identity: Identity
    #: Where each setting came from, as ``miglet-ctl config`` shows it.
    origins: list[dict[str, Any]]
    #: Where a reload finds them: the arguments of `miglet.config.sources.layers_of`.
    sources: dict[str, Any]
    pid: int
    boot_id: str
    started_now: float
    log_level: str
    vm_health: dict[str, Any] = field(default_factory=dict)
    #: Monotonic times of the last good answer and the last accepted heartbeat.
    contact_now: float | None = None
    heartbeat_now: float | None = None
    #: The last failure of each call, until it succeeds; the latest one is the last.
    controller_errors: dict[str, str] = field(default_factory=dict)
    last_error: str | None = None
    clock_offset_seconds: float | None = None
    #: The longest time for which the arbiter's loop handled no I/O, not counting the
    #: time that it waited for a processor.
    longest_stall_seconds: float = 0.0

    def note_answer(self, fact: ControllerAnswered, now: float) -> None:
        """The controller answered."""
        self.contact_now = now
        self.controller_errors.pop(fact.call, None)
        self.clock_offset_seconds = fact.clock_offset_seconds
        if fact.call == "heartbeat":
            self.heartbeat_now = now

    def note_failure(self, fact: ControllerFailed) -> None:
        """A call to the controller failed."""
        self.controller_errors.pop(fact.call, None)
        self.controller_errors[fact.call] = fact.reason

    def note_stall(self, seconds: float) -> None:
        """One turn of the arbiter's loop took so long."""
        self.longest_stall_seconds = max(self.longest_stall_seconds, seconds)

    def clock_offset_ms(self) -> int | None:
        """The controller's clock minus ours; None before it was measured."""
        offset = self.clock_offset_seconds
        return None if offset is None else round(offset * 1000)

    def health_of_machine(self, now: float) -> dict[str, Any]:
        """The heartbeat's ``vm_health``: the latest sample, our clock's error, and
        whether the controller gave a good answer within heartbeat.timeout.
        """
        answers = self._is_recent(self.contact_now, now)
        network = self.vm_health.get("network") or {}
        reachable = {"controller": "reachable" if answers else "unreachable"}
        return {
            **self.vm_health,
            "clock_offset_ms": self.clock_offset_ms(),
            "network": {**network, **reachable},
        }

    def current(self) -> dict[str, Any]:
        """The effective settings and where each came from, for a child task."""
        return {"settings": self.settings.as_dict(), "origins": self.origins}

    def controllers_time(self, at: float) -> float:
        """Wall time `at` by the controller's clock, where it is known: ours may err."""
        return at + (self.clock_offset_seconds or 0.0)

    def reachable(self, now: float) -> bool:
        """Whether a heartbeat was accepted within heartbeat.timeout."""
        return self._is_recent(self.heartbeat_now, now)

    def _is_recent(self, then: float | None, now: float) -> bool:
        return then is not None and now - then <= self.settings.heartbeat.timeout


Health = dict[str, dict[str, Any]]


def degraded(health: Health, journal: str | None) -> bool:
    """Whether the journal is degraded or a worker is not healthy."""
    return journal is not None or not all(each["healthy"] for each in health.values())


def status_object(
    vm: Vm,
    known: Knowledge,
    health: Health,
    counts: Counts,
    journal: str | None,
    moment: Moment,
) -> dict[str, Any]:
    """The answer to ``miglet-ctl --json status``."""
    return {
        "state": vm.state.value,
        "since": rfc3339(vm.since),
        "version": __version__,
        "pid": known.pid,
        "uptime_seconds": round(moment.now - known.started_now, 3),
        "vm_id": known.identity.vm_id,
        "pool_id": known.identity.pool_id,
        "org_id": known.identity.org_id,
        "degraded": degraded(health, journal),
        "arbiter": {"longest_stall_seconds": round(known.longest_stall_seconds, 4)},
        "workers": health,
        "runner": _runner(vm),
        "job": _job(vm.job, moment) if vm.job else None,
        "controller": _controller(known, moment.now),
        "events": _events(counts),
        "timeline": vm.timeline,
        "log_level": known.log_level,
        "last_error": known.last_error,
    }


def _events(counts: Counts) -> dict[str, int]:
    return {
        "pending": counts.pending,
        "delivered": counts.delivered,
        "rejected": counts.rejected,
        "dropped": counts.dropped,
    }


def _runner(vm: Vm) -> dict[str, Any] | None:
    if vm.runner is None:
        return None
    return {
        "state": runner_state(vm),
        "name": vm.runner["name"],
        "version": vm.runner.get("version"),
        "pid": vm.runner.get("pid"),
        "unit": vm.runner.get("unit"),
        "adopted": bool(vm.runner.get("adopted")),
    }


def runner_state(vm: Vm) -> str:
    """The heartbeat's ``runner_state``: idle, running, offline or stopped."""
    if vm.job:
        return "running" if vm.orphaned_since is None else "offline"
    if vm.state is State.DRAINING:
        return "idle" if vm.runner else "offline"
    return RUNNER_STATES.get(vm.state, "offline")


def _job(job: Job, moment: Moment) -> dict[str, Any]:
    return {
        **job.fields("job_id", "run_id", "name", "repository"),
        "started_at": rfc3339(job.seen_at),
        "elapsed_seconds": round(max(0.0, moment.now - job.seen_now), 3),
        "trace_id": job.run,
    }


def _controller(known: Knowledge, now: float) -> dict[str, Any]:
    contact = known.contact_now
    return {
        "reachable": known.reachable(now),
        "last_contact_seconds": None if contact is None else round(now - contact, 3),
        "last_error": next(reversed(known.controller_errors.values()), None),
    }


def heartbeat_content(
    vm: Vm, known: Knowledge, health: Health, counts: Counts, moment: Moment
) -> dict[str, Any]:
    """A heartbeat without its timestamp."""
    return {
        "vm_id": known.identity.vm_id,
        "pool_id": known.identity.pool_id,
        "org_id": known.identity.org_id,
        "boot_id": known.boot_id,
        "interval_seconds": known.settings.heartbeat.interval,
        "miglet_state": vm.state.value,
        "vm_health": known.health_of_machine(moment.now),
        "runner_state": runner_state(vm),
        "current_job": _current_job(vm, vm.job, moment) if vm.job else None,
        "workers": {
            name: {"restarts": each["restarts"], "healthy": each["healthy"]}
            for name, each in health.items()
        },
        "events_pending": counts.pending,
        "events_rejected": counts.rejected,
        "events_dropped": counts.dropped,
    }


def _current_job(vm: Vm, job: Job, moment: Moment) -> dict[str, Any]:
    """The heartbeat's ``current_job``."""
    return {
        **_job(job, moment),
        "status": job_status(vm),
        "resource_usage": maximum_usage(dict.fromkeys(USAGE), job.usage),
    }


def job_status(vm: Vm) -> str:
    """``stopping`` once a stop was ordered, ``orphaned`` if its Listener died."""
    if vm.stopped_by:
        return "stopping"
    return "running" if vm.orphaned_since is None else "orphaned"


def job_heartbeat(vm: Vm, known: Knowledge, moment: Moment) -> dict[str, Any] | None:
    """What the heartbeat-sender needs for a JobHeartbeat; None without a job."""
    job = vm.job
    if job is None or not job.announced:
        return None
    usage = maximum_usage(dict.fromkeys(USAGE), job.usage)
    event = JobHeartbeat(
        elapsed_seconds=0.0,
        resource_usage=usage,
        status=job_status(vm),
        **job.fields(*DESCRIPTION_KEYS),
    )
    envelope = seal(event, known.identity, job.reference, vm.state.value, moment.at)
    return {"envelope": envelope, "seen_now": job.seen_now}


def snapshot(
    vm: Vm,
    known: Knowledge,
    health: Health,
    counts: Counts,
    moment: Moment,
) -> dict[str, Any]:
    """What ``/metrics`` and ``/readyz`` say of the agent."""
    return {
        "version": __version__,
        "state": vm.state.value,
        "states": {each.value: each is vm.state for each in State},
        "ready": vm.state in (State.IDLE, State.JOB_RUNNING),
        "workers": health,
        "events": _events(counts),
        "job": vm.job.usage if vm.job else None,
        "job_elapsed_seconds": moment.now - vm.job.seen_now if vm.job else None,
        "last_heartbeat_now": known.heartbeat_now,
        "clock_offset_seconds": known.clock_offset_seconds,
        "uptime_seconds": moment.now - known.started_now,
    }


def one_line(vm: Vm, moment: Moment) -> str:
    """What ``systemctl status`` shows."""
    if vm.job is None:
        return vm.state.value
    job = vm.job
    place = job.identity.get("repository") or "unknown repository"
    number = f"#{job.identity['job_id']}" if job.identity.get("job_id") else ""
    name = job.identity.get("name") or "unknown job"
    minutes = int(max(0.0, moment.now - job.seen_now) // 60)
    return f"{vm.state.value}: {place}{number} {name[:60]}, {minutes} min"


class StatusPublisher:
    """Publishes what has changed to workers, systemd and watchers."""

    def __init__(
        self,
        known: Knowledge,
        journal: Journal,
        supervisor: Supervisor,
        notifier: Notifier,
        clock: Callable[[], Moment],
    ) -> None:
        self._known = known
        self._journal = journal
        self._supervisor = supervisor
        self._notifier = notifier
        self._clock = clock
        #: Notifies those who watch; None until the control socket is open.
        self.control: ControlServer | None = None
        self._shown = ""

    def status(self, vm: Vm) -> dict[str, Any]:
        """The status object."""
        return status_object(
            vm,
            self._known,
            self._supervisor.health(),
            self._journal.counts(),
            self._journal.degraded,
            self._clock(),
        )

    def publish(self, before: Vm, after: Vm) -> None:
        """Publish a changed state, and a job that is new or better identified."""
        state_changed = after.state is not before.state
        job_changed = _reference(before) != _reference(after)
        if job_changed:
            self._name_job(after)
        if state_changed:
            self._publish_state(after)
        if state_changed or job_changed:
            self.publish_heartbeat(after, at_once=state_changed)

    def _name_job(self, vm: Vm) -> None:
        """Have every process name the job in its log lines."""
        reference = _reference(vm) or (None, None, None)
        logger.set_job(*reference)
        self._supervisor.broadcast(FollowJob(*reference))

    def publish_heartbeat(self, vm: Vm, at_once: bool = False) -> None:
        """Update what the heartbeats and the metrics say."""
        health, counts, moment = (
            self._supervisor.health(),
            self._journal.counts(),
            self._clock(),
        )
        content = heartbeat_content(vm, self._known, health, counts, moment)
        job = job_heartbeat(vm, self._known, moment)
        self._supervisor.send(UPLINK, UpdateHeartbeat(content, job, at_once))
        if self._known.settings.metrics.listen:
            shown = snapshot(vm, self._known, health, counts, moment)
            self._supervisor.send("metrics-sampler", ShowStatus(shown))

    def publish_line(self, vm: Vm) -> None:
        """Update the line that systemd shows."""
        line = one_line(vm, self._clock())
        if line != self._shown:
            self._shown = line
            self._notifier.status(line)

    def _publish_state(self, vm: Vm) -> None:
        self.publish_line(vm)
        if self.control:
            news = {"state": vm.state.value, "at": rfc3339(self._clock().at)}
            self.control.publish(news)


def _reference(vm: Vm) -> JobReference | None:
    return vm.job.reference if vm.job else None
