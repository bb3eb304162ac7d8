"""The pages for Prometheus and health checks, from the latest sample and snapshot.

The machine's families are declared with its metrics (`miglet.metrics.machine`), the
agent's here, one function each. Names have the base unit, ratios go from 0 to 1.
Imported only by a sampler that listens, since prometheus_client costs memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric

from miglet.metrics.machine import METRICS, Series

FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}

#: Of every answer but that of ``/metrics``.
HEADERS = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Cache-Control", "no-store"),
)

#: The arbiter's status; ``now`` is added to it here.
Snapshot = Mapping[str, Any]

#: The families that the arbiter's snapshot fills, in the order of the page.
AGENT: list[Series] = []


def agent_family(
    kind: Literal["gauge", "counter"], label: str | None = None
) -> Callable[[Callable[[Snapshot], Any]], Callable[[Snapshot], Any]]:
    """Register a function as the family of its name; its docstring is the help text.

    It returns the value, or with a `label` the values by the label's.
    """

    def register(read: Callable[[Snapshot], Any]) -> Callable[[Snapshot], Any]:
        def values(agent: Snapshot) -> dict[tuple[str, ...], Any]:
            value = read(agent)
            return {(key,): value[key] for key in value} if label else {(): value}

        labels = (label,) if label else ()
        text = " ".join((read.__doc__ or "").split())
        AGENT.append(Series(kind, read.__name__, labels, text, values))
        return read

    return register


def _part(agent: Snapshot, key: str) -> Mapping[str, Any]:
    return agent.get(key) or {}


@agent_family("gauge", "state")
def miglet_state(agent: Snapshot) -> Any:
    """The lifecycle state of the machine: 1 for the present one, 0 for the others."""
    return _part(agent, "states")


@agent_family("gauge")
def miglet_uptime_seconds(agent: Snapshot) -> Any:
    """Time since MIGlet started."""
    return agent.get("uptime_seconds")


@agent_family("gauge")
def miglet_heartbeat_age_seconds(agent: Snapshot) -> Any:
    """Time since the controller last accepted a heartbeat."""
    last = agent.get("last_heartbeat_now")
    return None if last is None else max(0.0, agent["now"] - last)


@agent_family("gauge")
def miglet_clock_offset_seconds(agent: Snapshot) -> Any:
    """The controller's clock minus the machine's."""
    return agent.get("clock_offset_seconds")


@agent_family("gauge")
def miglet_events_pending(agent: Snapshot) -> Any:
    """Events that wait for the controller's acknowledgement."""
    return _part(agent, "events").get("pending")


@agent_family("counter", "outcome")
def miglet_events(agent: Snapshot) -> Any:
    """Events that are no longer pending: delivered, rejected or dropped."""
    events = _part(agent, "events")
    return {key: events.get(key) for key in ("delivered", "rejected", "dropped")}


@agent_family("gauge", "worker")
def miglet_worker_healthy(agent: Snapshot) -> Any:
    """Whether a worker runs and answers: 1 or 0."""
    workers = _part(agent, "workers")
    return {name: worker.get("healthy") for name, worker in workers.items()}


@agent_family("counter", "worker")
def miglet_worker_restarts(agent: Snapshot) -> Any:
    """How often a worker has been restarted."""
    workers = _part(agent, "workers")
    return {name: worker.get("restarts") for name, worker in workers.items()}


@agent_family("gauge")
def miglet_job_running(agent: Snapshot) -> Any:
    """Whether a job is on the machine: 1 or 0."""
    return agent.get("job_elapsed_seconds") is not None


@agent_family("gauge")
def miglet_job_elapsed_seconds(agent: Snapshot) -> Any:
    """Time since the first sign of the present job."""
    return agent.get("job_elapsed_seconds")


@agent_family("gauge")
def miglet_job_cpu_seconds(agent: Snapshot) -> Any:
    """CPU time that the processes of the present job have used."""
    return _part(agent, "job").get("cpu_seconds")


@agent_family("gauge")
def miglet_job_memory_max_bytes(agent: Snapshot) -> Any:
    """Most memory that the processes of the present job have had at a time."""
    return _part(agent, "job").get("max_memory_bytes")


@agent_family("gauge", "direction")
def miglet_job_io_bytes(agent: Snapshot) -> Any:
    """What the processes of the present job have read from and written to disks."""
    job = _part(agent, "job")
    return {key: job.get(f"io_{key}_bytes") for key in ("read", "write")}


class Pages:
    """A WSGI application: ``/metrics``, ``/healthz`` and ``/readyz``.

    Health is about MIGlet: a page never fails because a job runs. `fresh_seconds` is
    the age up to which a sample and a snapshot count as fresh. Both are replaced as a
    whole, so that the server's threads may read them.
    """

    def __init__(
        self, fresh_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.fresh_seconds = fresh_seconds
        self._clock = clock
        self._sample: Mapping[str, Any] = {}
        self._agent: Snapshot = {}
        self._sampled_now = self._received_now = float("-inf")
        registry = CollectorRegistry()
        registry.register(self)
        self._metrics = make_wsgi_app(registry)

    def show_sample(self, sample: Mapping[str, Any]) -> None:
        """Show the machine's latest sample."""
        self._sampled_now = self._clock()
        self._sample = sample

    def show_agent(self, snapshot: Snapshot) -> None:
        """Show what the arbiter reports of the agent."""
        self._received_now = self._clock()
        self._agent = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every family that has a value now, as the registry asks for them.

        The build, the agent's families, then the machine's.
        """
        agent, sample = {**self._agent, "now": self._clock()}, self._sample
        version = {"version": str(agent.get("version", ""))}
        yield InfoMetricFamily("miglet_build", "The running MIGlet.", version)
        read: list[tuple[Series, Any]] = [(series, agent) for series in AGENT]
        for metric in METRICS.values():
            if sample.get(metric.name) is not None:
                read += ((series, sample[metric.name]) for series in metric.series)
        for series, source in read:
            family = FAMILIES[series.kind](
                series.name, series.help, labels=series.labels
            )
            for labels, value in series.values(source).items():
                if value is not None:
                    family.add_metric(labels, float(value))
            if family.samples:
                yield family

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        headers = [*HEADERS]
        checks = {"/healthz": self.health, "/readyz": self.readiness}
        if method not in ("GET", "HEAD"):
            headers.append(("Allow", "GET, HEAD"))
            status, line = "405 Method Not Allowed", "use GET"
        elif path == "/metrics":
            body = self._metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
            return [] if method == "HEAD" else body
        elif path in checks:
            healthy, line = checks[path]()
            status = "200 OK" if healthy else "503 Service Unavailable"
        else:
            status, line = "404 Not Found", "try /metrics, /healthz, /readyz"
        start_response(status, headers)
        return [] if method == "HEAD" else [line.encode("utf-8", "replace") + b"\n"]

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
        state = str(self._agent.get("state", "unknown"))
        ready = bool(self._agent.get("ready"))
        return healthy and ready, state if healthy else reason
