"""The page that Prometheus reads, made from the latest sample and snapshot.

One function a family: its docstring is the help text, its name in the decorator has
the base unit, ratios go from 0 to 1. Imported by a sampler that listens, by no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

#: Values by label values, in the order of the family's labels.
Values = Mapping[tuple[str, ...], Any]

#: The lifecycle's states, each of which has a line of ``miglet_state``.
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


@dataclass(frozen=True)
class Seen:
    """What is shown: the machine's sample, the agent's snapshot, and the time."""

    machine: Mapping[str, Any] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)
    #: Monotonic, for ages.
    now: float = 0.0

    def of(self, part: str) -> Mapping[str, Any]:
        """A part of the agent's snapshot, empty where there is none."""
        return self.agent.get(part) or {}


Family = Callable[[Seen], Values]

#: Every family: its type, its name and labels, and what gives its values.
FAMILIES: list[tuple[type, str, tuple[str, ...], Family]] = []


def gauge(name: str, *labels: str) -> Callable[[Family], Family]:
    """Register a value that goes up and down."""
    return _registering(GaugeMetricFamily, name, labels)


def counter(name: str, *labels: str) -> Callable[[Family], Family]:
    """Register a value that only grows; the page adds ``_total`` to its name."""
    return _registering(CounterMetricFamily, name, labels)


def _registering(
    kind: type, name: str, labels: tuple[str, ...]
) -> Callable[[Family], Family]:
    def register(family: Family) -> Family:
        FAMILIES.append((kind, name, labels, family))
        return family

    return register


class Exposition:
    """A collector in a registry of its own, and the page that comes of it."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All families that have a value now."""
        version = str(self.seen.agent.get("version", ""))
        yield InfoMetricFamily(
            "miglet_build", "The running MIGlet.", {"version": version}
        )
        for kind, name, labels, family in FAMILIES:
            values = family(self.seen)
            metric = kind(name, _help(family), labels=labels)
            for label, value in values.items():
                if value is not None:
                    metric.add_metric(label, float(value))
            if metric.samples:
                yield metric

    def page(self, accept: str) -> tuple[str, bytes]:
        """Content type and body in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)


def _help(family: Family) -> str:
    return " ".join((family.__doc__ or "").split())


def _one(value: Any) -> Values:
    return {(): value}


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


@gauge("miglet_state", "state")
def state(seen: Seen) -> Values:
    """The lifecycle state of the machine: 1 for the present one, 0 for the others."""
    present = seen.agent.get("state")
    return {(name,): name == present for name in STATES} if present else {}


@gauge("miglet_uptime_seconds")
def uptime(seen: Seen) -> Values:
    """Time since MIGlet started."""
    return _one(seen.agent.get("uptime_seconds"))


@gauge("miglet_heartbeat_age_seconds")
def heartbeat_age(seen: Seen) -> Values:
    """Time since the controller last accepted a heartbeat."""
    last = seen.agent.get("last_heartbeat_now")
    return _one(None if last is None else max(0.0, seen.now - last))


@gauge("miglet_events_pending")
def events_pending(seen: Seen) -> Values:
    """Events that wait for the controller's acknowledgement."""
    return _one(seen.of("events").get("pending"))


@counter("miglet_events", "outcome")
def events(seen: Seen) -> Values:
    """Events by what became of them: delivered, rejected or dropped."""
    outcomes = ("delivered", "rejected", "dropped")
    return {(name,): seen.of("events").get(name) for name in outcomes}


@gauge("miglet_worker_healthy", "worker")
def worker_healthy(seen: Seen) -> Values:
    """Whether a worker runs and shows signs of life: 1 or 0."""
    return {(name,): each.get("healthy") for name, each in seen.of("workers").items()}


@counter("miglet_worker_restarts", "worker")
def worker_restarts(seen: Seen) -> Values:
    """How often a worker has been replaced."""
    return {(name,): each.get("restarts") for name, each in seen.of("workers").items()}


@gauge("miglet_job_running")
def job_running(seen: Seen) -> Values:
    """Whether a job is on the machine: 1 or 0."""
    return _one(seen.agent.get("job_elapsed_seconds") is not None)


@gauge("miglet_job_elapsed_seconds")
def job_elapsed(seen: Seen) -> Values:
    """Time since the first sign of the present job."""
    return _one(seen.agent.get("job_elapsed_seconds"))


@gauge("miglet_job_cpu_seconds")
def job_cpu(seen: Seen) -> Values:
    """CPU time that the processes of the present job have used."""
    return _one(seen.of("job").get("cpu_seconds"))


@gauge("miglet_job_memory_max_bytes")
def job_memory(seen: Seen) -> Values:
    """Most memory that the processes of the present job have had at a time."""
    return _one(seen.of("job").get("max_memory_bytes"))


@gauge("miglet_job_io_bytes", "direction")
def job_io(seen: Seen) -> Values:
    """What the processes of the present job have read from and written to disks."""
    job = seen.of("job")
    return {
        ("read",): job.get("io_read_bytes"),
        ("write",): job.get("io_write_bytes"),
    }


@gauge("miglet_cpu_ratio")
def cpu(seen: Seen) -> Values:
    """CPU time in use between the last two samples, all CPUs together."""
    return _one(_ratio(seen.machine.get("cpu_percent")))


@gauge("miglet_load1")
def load1(seen: Seen) -> Values:
    """Load average over one minute."""
    return _one(seen.machine.get("load1"))


@gauge("miglet_memory_used_bytes")
def memory_used(seen: Seen) -> Values:
    """Memory that cannot be had without swapping."""
    return _one(seen.machine.get("memory_used_bytes"))


@gauge("miglet_memory_size_bytes")
def memory_size(seen: Seen) -> Values:
    """Memory of the machine."""
    return _one(seen.machine.get("memory_total_bytes"))


@gauge("miglet_disk_used_bytes")
def disk_used(seen: Seen) -> Values:
    """Space in use on the disk that jobs work on."""
    return _one(seen.machine.get("disk_used_bytes"))


@gauge("miglet_disk_size_bytes")
def disk_size(seen: Seen) -> Values:
    """Size of the disk that jobs work on."""
    return _one(seen.machine.get("disk_total_bytes"))


@gauge("miglet_disk_inodes_used")
def disk_inodes_used(seen: Seen) -> Values:
    """Files and folders on the disk that jobs work on."""
    return _one(seen.machine.get("disk_inodes_used_count"))


@gauge("miglet_disk_inodes")
def disk_inodes(seen: Seen) -> Values:
    """Files and folders that fit on the disk that jobs work on."""
    return _one(seen.machine.get("disk_inodes_total_count"))


@gauge("miglet_pressure_ratio", "resource", "kind")
def pressure(seen: Seen) -> Values:
    """Share of the last ten seconds that some, or all, tasks waited for a resource."""
    return {
        (resource, kind): _ratio((stalls or {}).get(f"{kind}_avg10"))
        for resource, stalls in (seen.machine.get("pressure") or {}).items()
        for kind in ("some", "full")
    }


@counter("miglet_oom_kills")
def oom_kills(seen: Seen) -> Values:
    """Processes that the kernel killed for want of memory since MIGlet started."""
    return _one(seen.machine.get("oom_kills"))


@gauge("miglet_clock_offset_seconds")
def clock_offset(seen: Seen) -> Values:
    """The controller's clock minus the machine's."""
    offset = seen.machine.get("clock_offset_ms")
    return _one(None if offset is None else offset / 1000)


@counter("miglet_network_bytes", "direction")
def network_bytes(seen: Seen) -> Values:
    """Bytes received and transmitted by the machine's network devices."""
    return _network(seen, "bytes")


@counter("miglet_network_errors", "direction")
def network_errors(seen: Seen) -> Values:
    """Errors of the machine's network devices."""
    return _network(seen, "errors")


@counter("miglet_network_dropped_packets", "direction")
def network_dropped(seen: Seen) -> Values:
    """Packets that the machine's network devices dropped."""
    return _network(seen, "dropped")


def _network(seen: Seen, what: str) -> Values:
    network = seen.machine.get("network") or {}
    return {
        ("receive",): network.get(f"rx_{what}"),
        ("transmit",): network.get(f"tx_{what}"),
    }
