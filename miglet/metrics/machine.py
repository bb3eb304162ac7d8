"""The machine's metrics: one declaration each, and the sampler that reads them all.

A metric is one decorated function. Its name is its key in the heartbeat's
``vm_health`` and has its unit; its docstring is the help text everywhere; the decorator
says how the Prometheus page shows it (`miglet.metrics.prometheus`, which only a sampler
that listens imports). CPU, memory, disk and network come from psutil; pressure stall
information and OOM kills, which psutil does not have, are read from /proc.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from miglet.metrics.disk import existing

log = logging.getLogger(__name__)

#: What a metric raises when the kernel does not provide its value.
UNREADABLE = (OSError, ValueError, LookupError)

#: More than the files below /proc that are read here have.
PIECE_BYTES = 16 * 1024

RESOURCES = ("cpu", "memory", "io")

#: What of psutil's counters goes into ``network``, by the key there.
NETWORK_COUNTERS = {
    "rx_bytes": "bytes_recv",
    "rx_errors": "errin",
    "rx_dropped": "dropin",
    "tx_bytes": "bytes_sent",
    "tx_errors": "errout",
    "tx_dropped": "dropout",
}


class Series(NamedTuple):
    """One Prometheus family of a metric.

    `values` maps the metric's value to values by label values, in the order of
    `labels`; a None among them is not shown.
    """

    kind: Literal["gauge", "counter"]
    name: str
    labels: tuple[str, ...]
    help: str
    values: Callable[[Any], dict[tuple[str, ...], Any]]


class Metric(NamedTuple):
    """What the heartbeat and the Prometheus page need to know of one metric."""

    name: str
    help: str
    read: Callable[[Machine], Any]
    series: tuple[Series, ...]
    #: The group that the settings can leave out, and what then stands in its place.
    group: str | None
    substitute: Any


#: Every metric by its name, in the order of the heartbeat's ``vm_health``.
METRICS: dict[str, Metric] = {}


def metric(
    *series: Series, group: str | None = None, substitute: Any = None
) -> Callable[[Callable[[Machine], Any]], Callable[[Machine], Any]]:
    """Register a function as the metric of its name.

    A series without a help text of its own has the function's docstring.
    """

    def register(read: Callable[[Machine], Any]) -> Callable[[Machine], Any]:
        text = " ".join((read.__doc__ or "").split())
        shown = tuple(each._replace(help=each.help or text) for each in series)
        METRICS[read.__name__] = Metric(
            read.__name__, text, read, shown, group, substitute
        )
        return read

    return register


def gauge(name: str, scale: float = 1.0) -> Series:
    """A value that goes up and down, in the base unit once multiplied by `scale`."""
    return Series("gauge", name, (), "", lambda value: {(): value * scale})


def counter(name: str) -> Series:
    """A value that only grows; the page adds ``_total`` to its name."""
    return Series("counter", name, (), "", lambda value: {(): value})


def network_counter(name: str, key: str, help: str) -> Series:
    """A counter of the machine's network devices, one series for each direction."""

    def values(network: dict[str, int]) -> dict[tuple[str, ...], Any]:
        received, sent = network.get(f"rx_{key}"), network.get(f"tx_{key}")
        return {("receive",): received, ("transmit",): sent}

    return Series("counter", name, ("direction",), help, values)


def pressure_ratios(
    pressure: dict[str, dict[str, float | None]],
) -> dict[tuple[str, ...], Any]:
    """The averages of ``pressure`` as ratios by resource and kind."""
    averages = {
        (resource, kind): stalls[f"{kind}_avg10"]
        for resource, stalls in pressure.items()
        for kind in ("some", "full")
    }
    return {
        labels: None if percent is None else percent / 100
        for labels, percent in averages.items()
    }


@dataclass
class Machine:
    """Where the metrics look, and the values that later samples are compared with."""

    #: A folder on the disk that jobs work on; the nearest existing parent will do.
    disk: Path = Path("/")
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    #: Clock ticks, busy and in total, at the previous sample.
    ticks: tuple[float, float] = field(default=(0.0, 0.0), init=False)
    #: OOM kills since the kernel started and before the first sample.
    earlier_oom_kills: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        with contextlib.suppress(*UNREADABLE):
            self.ticks = _ticks()
        with contextlib.suppress(*UNREADABLE):
            self.earlier_oom_kills = _oom_kills(self)

    def text(self, name: str) -> str:
        """The content of a file below /proc."""
        # Not `Path.read_text`: its text layer left the sampler 0.1 MB larger.
        descriptor = os.open(f"{self.proc}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = b"".join(iter(lambda: os.read(descriptor, PIECE_BYTES), b""))
        finally:
            os.close(descriptor)
        return content.decode("ascii", "replace")


@metric(gauge("miglet_cpu_ratio", 0.01))
def cpu_percent(machine: Machine) -> float:
    """CPU time in use since the previous sample, all CPUs together."""
    before, machine.ticks = machine.ticks, _ticks()
    busy, total = (new - old for new, old in zip(machine.ticks, before, strict=True))
    if total <= 0:
        raise ValueError("no clock tick since the previous sample")
    return round(min(100.0, max(0.0, 100.0 * busy / total)), 1)


@metric(gauge("miglet_load1"))
def load1(machine: Machine) -> float:
    """Load average over one minute: tasks that run or wait for a CPU or a disk."""
    return round(psutil.getloadavg()[0], 2)


@metric(gauge("miglet_memory_used_bytes"))
def memory_used_bytes(machine: Machine) -> int:
    """Memory that is not available without swapping."""
    memory = psutil.virtual_memory()
    return memory.total - memory.available


@metric(gauge("miglet_memory_size_bytes"))
def memory_total_bytes(machine: Machine) -> int:
    """Memory of the machine."""
    return psutil.virtual_memory().total


@metric(gauge("miglet_disk_used_bytes"), group="disk")
def disk_used_bytes(machine: Machine) -> int:
    """Space in use on the disk that jobs work on."""
    return psutil.disk_usage(str(existing(machine.disk))).used


@metric(gauge("miglet_disk_size_bytes"), group="disk")
def disk_total_bytes(machine: Machine) -> int:
    """Size of the disk that jobs work on."""
    return psutil.disk_usage(str(existing(machine.disk))).total


@metric(gauge("miglet_disk_inodes_used"), group="disk")
def disk_inodes_used_count(machine: Machine) -> int:
    """Files and folders on the disk that jobs work on."""
    disk = os.statvfs(existing(machine.disk))
    return disk.f_files - disk.f_ffree


@metric(gauge("miglet_disk_inodes"), group="disk")
def disk_inodes_total_count(machine: Machine) -> int:
    """Files and folders that fit on the disk that jobs work on; 0: no fixed limit."""
    return os.statvfs(existing(machine.disk)).f_files


@metric(
    Series("gauge", "miglet_pressure_ratio", ("resource", "kind"), "", pressure_ratios)
)
def pressure(machine: Machine) -> dict[str, dict[str, float | None]]:
    """Share of the last ten seconds that some, or all, tasks waited for a resource.

    Empty where the kernel has no pressure stall information (PSI).
    """
    folder = f"{machine.proc}/pressure"
    return {
        name: _stalls(machine.text(f"pressure/{name}"))
        for name in RESOURCES
        if os.path.exists(f"{folder}/{name}")
    }


@metric(counter("miglet_oom_kills"))
def oom_kills(machine: Machine) -> int:
    """Processes that the kernel killed for lack of memory since MIGlet started."""
    return max(0, _oom_kills(machine) - machine.earlier_oom_kills)


@metric(
    network_counter(
        "miglet_network_bytes",
        "bytes",
        "Bytes received and transmitted by the machine's network devices.",
    ),
    network_counter(
        "miglet_network_errors", "errors", "Errors of the machine's network devices."
    ),
    network_counter(
        "miglet_network_dropped_packets",
        "dropped",
        "Packets that the machine's network devices dropped.",
    ),
    group="network",
    substitute={},
)
def network(machine: Machine) -> dict[str, int]:
    """Bytes, errors and drops of the machine's network devices since boot.

    Bridges and containers' ends are left out: they would count the same bytes again.
    """
    devices = psutil.net_io_counters(pernic=True)
    physical = {
        name
        for name in devices
        if os.path.exists(f"{machine.sys}/class/net/{name}/device")
    }
    counted = physical or devices.keys() - {"lo"}
    return {
        key: sum(getattr(devices[name], attribute) for name in counted)
        for key, attribute in NETWORK_COUNTERS.items()
    }


def _ticks() -> tuple[float, float]:
    times = psutil.cpu_times()
    # The kernel counts a guest's time in user's and nice's as well.
    total = sum(times) - times.guest - times.guest_nice
    return total - times.idle - times.iowait, total


def _oom_kills(machine: Machine) -> int:
    lines = (line.split() for line in machine.text("vmstat").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}["oom_kill"]


def _stalls(text: str) -> dict[str, float | None]:
    # "some avg10=0.12 avg60=0.03 avg300=0.01 total=123", one line each for some and
    # full; old kernels have no full for the CPU.
    stalls: dict[str, float | None] = {"some_avg10": None, "full_avg10": None}
    for line in text.splitlines():
        kind, average, *_ = line.split()
        stalls[f"{kind}_avg10"] = float(average.removeprefix("avg10="))
    return stalls


class Sampler:
    """Samples `machine`, without the groups of metrics in `left_out`.

    A sample takes a few milliseconds and never fails: what cannot be read is None.
    """

    def __init__(
        self, machine: Machine, left_out: frozenset[str] = frozenset()
    ) -> None:
        self.machine = machine
        self.left_out = left_out
        self._logged: set[str] = set()

    def sample(self) -> dict[str, Any]:
        """The heartbeat's ``vm_health``, but for what the parent knows itself."""
        return {metric.name: self._value(metric) for metric in METRICS.values()}

    def _value(self, metric: Metric) -> Any:
        if metric.group in self.left_out:
            return metric.substitute
        try:
            return metric.read(self.machine)
        except UNREADABLE as error:
            if metric.name not in self._logged:
                log.debug("%s cannot be read: %s", metric.name, error)
                self._logged.add(metric.name)
            return None
