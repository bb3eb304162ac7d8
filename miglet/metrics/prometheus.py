"""The pages for Prometheus and health checks, from the latest sample and snapshot.

The machine's families are declared with its metrics (`miglet.metrics.machine`), the
agent's in `AGENT`. Names have the base unit, ratios go from 0 to 1. Imported only by a
sampler that listens, since prometheus_client costs memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric

from miglet.metrics.machine import METRICS, Series

FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}

#: The lifecycle's states, each of which has a series of ``miglet_state``.
STATES = (
    "initializing",
    "waiting_for_controller",
    "registering_runner",
    "idle",
    "job_running",
    "draining",
    "shutting_down",
    "error",
)

#: The states in which the machine has a runner that listens, or a job.
READY_STATES = frozenset({"idle", "job_running"})

Snapshot = Mapping[str, Any]
Values = dict[tuple[str, ...], Any]


def _of_snapshot(key: str) -> Callable[[Snapshot], Values]:
    return lambda agent: {(): agent.get(key)}


def _of_job(key: str) -> Callable[[Snapshot], Values]:
    return lambda agent: {(): (agent.get("job") or {}).get(key)}


def _of_workers(key: str) -> Callable[[Snapshot], Values]:
    return lambda agent: {
        (name,): worker.get(key)
        for name, worker in (agent.get("workers") or {}).items()
    }


def _states(agent: Snapshot) -> Values:
    present = agent.get("state")
    return {(name,): name == present for name in STATES} if present else {}


def _finished_events(agent: Snapshot) -> Values:
    events = agent.get("events") or {}
    outcomes = ("delivered", "rejected", "dropped")
    return {(outcome,): events.get(outcome) for outcome in outcomes}


def _pending_events(agent: Snapshot) -> Values:
    return {(): (agent.get("events") or {}).get("pending")}


def _job_running(agent: Snapshot) -> Values:
    return {(): agent.get("job_elapsed_seconds") is not None}


def _job_io(agent: Snapshot) -> Values:
    job = agent.get("job") or {}
    return {
        ("read",): job.get("io_read_bytes"),
        ("write",): job.get("io_write_bytes"),
    }


def _heartbeat_age(agent: Snapshot) -> Values:
    last = agent.get("last_heartbeat_now")
    return {(): None if last is None else max(0.0, agent["now"] - last)}


def _clock_offset(agent: Snapshot) -> Values:
    offset = agent.get("clock_offset_ms")
    return {(): None if offset is None else offset / 1000}


#: The families that the arbiter's snapshot fills; ``now`` is added to it here.
AGENT = (
    Series(
        "gauge",
        "miglet_state",
        ("state",),
        "The lifecycle state of the machine: 1 for the present one, 0 for the others.",
        _states,
    ),
    Series(
        "gauge",
        "miglet_uptime_seconds",
        (),
        "Time since MIGlet started.",
        _of_snapshot("uptime_seconds"),
    ),
    Series(
        "gauge",
        "miglet_heartbeat_age_seconds",
        (),
        "Time since the controller last accepted a heartbeat.",
        _heartbeat_age,
    ),
    Series(
        "gauge",
        "miglet_clock_offset_seconds",
        (),
        "The controller's clock minus the machine's.",
        _clock_offset,
    ),
    Series(
        "gauge",
        "miglet_events_pending",
        (),
        "Events that wait for the controller's acknowledgement.",
        _pending_events,
    ),
    Series(
        "counter",
        "miglet_events",
        ("outcome",),
        "Events that are no longer pending: delivered, rejected or dropped.",
        _finished_events,
    ),
    Series(
        "gauge",
        "miglet_worker_healthy",
        ("worker",),
        "Whether a worker runs and answers: 1 or 0.",
        _of_workers("healthy"),
    ),
    Series(
        "counter",
        "miglet_worker_restarts",
        ("worker",),
        "How often a worker has been restarted.",
        _of_workers("restarts"),
    ),
    Series(
        "gauge",
        "miglet_job_running",
        (),
        "Whether a job is on the machine: 1 or 0.",
        _job_running,
    ),
    Series(
        "gauge",
        "miglet_job_elapsed_seconds",
        (),
        "Time since the first sign of the present job.",
        _of_snapshot("job_elapsed_seconds"),
    ),
    Series(
        "gauge",
        "miglet_job_cpu_seconds",
        (),
        "CPU time that the processes of the present job have used.",
        _of_job("cpu_seconds"),
    ),
    Series(
        "gauge",
        "miglet_job_memory_max_bytes",
        (),
        "Most memory that the processes of the present job have had at a time.",
        _of_job("max_memory_bytes"),
    ),
    Series(
        "gauge",
        "miglet_job_io_bytes",
        ("direction",),
        "What the processes of the present job have read from and written to disks.",
        _job_io,
    ),
)


class MachineCollector:
    """Every family that has a value now, for a registry of prometheus_client.

    `sample` and `agent` are replaced as a whole, so that another thread may collect.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.sample: Mapping[str, Any] = {}
        self.agent: Snapshot = {}
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """The build, the agent's families, then the machine's."""
        agent = {**self.agent, "now": self._clock()}
        sample = self.sample
        version = {"version": str(agent.get("version", ""))}
        yield InfoMetricFamily("miglet_build", "The running MIGlet.", version)
        for series in AGENT:
            yield from family(series, series.values(agent))
        for metric in METRICS.values():
            if sample.get(metric.name) is not None:
                for series in metric.series:
                    yield from family(series, series.values(sample[metric.name]))


def family(series: Series, values: Values) -> Iterator[Metric]:
    """The family with these values; nothing where all of them are unknown."""
    shown = FAMILIES[series.kind](series.name, series.help, labels=series.labels)
    for labels, value in values.items():
        if value is not None:
            shown.add_metric(labels, float(value))
    if shown.samples:
        yield shown


class Pages:
    """A WSGI application: ``/metrics``, ``/healthz`` and ``/readyz``.

    Health is about MIGlet: a page never fails because a job runs. `fresh_seconds` is
    the age up to which a sample and a snapshot count as fresh.
    """

    def __init__(
        self, fresh_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.fresh_seconds = fresh_seconds
        self._clock = clock
        self._collector = MachineCollector(clock)
        registry = CollectorRegistry()
        registry.register(self._collector)
        self._metrics = make_wsgi_app(registry)
        self._sampled_now = self._received_now = float("-inf")

    def show_sample(self, sample: Mapping[str, Any]) -> None:
        """Show the machine's latest sample."""
        self._sampled_now = self._clock()
        self._collector.sample = sample

    def show_agent(self, snapshot: Snapshot) -> None:
        """Show what the arbiter reports of the agent."""
        self._received_now = self._clock()
        self._collector.agent = snapshot

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            allow = [("Allow", "GET, HEAD")]
            return _text(start_response, "405 Method Not Allowed", "use GET", *allow)
        path = environ["PATH_INFO"]
        if path == "/metrics":
            body = self._metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
        elif path in ("/healthz", "/readyz"):
            healthy, reason = self.health() if path == "/healthz" else self.readiness()
            status = "200 OK" if healthy else "503 Service Unavailable"
            body = _text(start_response, status, reason)
        else:
            body = _text(start_response, "404 Not Found", "try /metrics, /healthz")
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    def health(self) -> tuple[bool, str]:
        """Whether sampler and arbiter send updates, and a line on it."""
        for what, now in (
            ("sample of the machine", self._sampled_now),
            ("snapshot from the arbiter", self._received_now),
        ):
            if self._clock() - now > self.fresh_seconds:
                return False, f"no {what} for {self.fresh_seconds:g} s"
        return True, "ok"

    def readiness(self) -> tuple[bool, str]:
        """Whether the machine has a runner that listens, or a job."""
        healthy, reason = self.health()
        state = str(self._collector.agent.get("state", "unknown"))
        return healthy and state in READY_STATES, state if healthy else reason


def _text(
    start_response: Callable[..., Any],
    status: str,
    line: str,
    *headers: tuple[str, str],
) -> list[bytes]:
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Cache-Control", "no-store"),
            *headers,
        ],
    )
    return [line.encode("utf-8", "replace") + b"\n"]
