"""One function a metric: what each one reads from the kernel, and nothing else.

A metric's name has its unit, its docstring says what it means, and it raises OSError,
ValueError or LookupError where the kernel does not tell: the sampler makes that None.
Files are read directly, without psutil: a tenth of the time, and any root will do.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Metric = Callable[["Machine"], Any]

#: Every metric by its name, in the order of the heartbeat's ``vm_health``.
METRICS: dict[str, Metric] = {}

#: What of /proc/net/dev is told, by the number of its column.
NETWORK_COLUMNS = {
    "rx_bytes": 0,
    "rx_errors": 2,
    "rx_dropped": 3,
    "tx_bytes": 8,
    "tx_errors": 10,
    "tx_dropped": 11,
}

#: What a metric raises when the kernel does not tell.
UNREADABLE = (OSError, ValueError, LookupError)

#: More than most files below /proc have.
PIECE_BYTES = 16 * 1024

RESOURCES = ("cpu", "memory", "io")


def metric(read: Metric) -> Metric:
    """Register a function as the metric of its name."""
    METRICS[read.__name__] = read
    return read


@dataclass
class Machine:
    """Where the metrics look, and what they must remember from sample to sample."""

    #: A folder on the disk that jobs work on; the nearest existing parent will do.
    disk: Path = Path("/")
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    #: The controller's clock minus ours, as its answers say; None: not known.
    clock_offset_ms: float | None = None
    #: Busy and all clock ticks at the sample before.
    ticks: tuple[int, int] = (0, 0)
    #: OOM kills before this agent looked for the first time.
    earlier_oom_kills: int = 0

    def text(self, name: str) -> str:
        """The content of a file below /proc."""
        return _content(f"{self.proc}/{name}")


def begin(machine: Machine) -> None:
    """Take the values that later samples are compared with."""
    with contextlib.suppress(*UNREADABLE):
        machine.ticks = _ticks(machine)
    with contextlib.suppress(*UNREADABLE):
        machine.earlier_oom_kills = _oom_kills(machine)


@metric
def cpu_percent(machine: Machine) -> float:
    """CPU time in use since the sample before, all CPUs together, 0 to 100."""
    before, machine.ticks = machine.ticks, _ticks(machine)
    busy, every = (new - old for new, old in zip(machine.ticks, before, strict=True))
    if every <= 0:
        raise ValueError("no tick of the clock since the sample before")
    return round(min(100.0, max(0.0, 100.0 * busy / every)), 1)


@metric
def load1(machine: Machine) -> float:
    """Load average over one minute: tasks that run or wait for a CPU or a disk."""
    return float(machine.text("loadavg").split()[0])


@metric
def memory_used_bytes(machine: Machine) -> int:
    """Memory that cannot be had without swapping: all but the available."""
    memory = _named_numbers(machine.text("meminfo"))
    return (memory["MemTotal:"] - memory["MemAvailable:"]) * 1024


@metric
def memory_total_bytes(machine: Machine) -> int:
    """Memory of the machine."""
    return _named_numbers(machine.text("meminfo"))["MemTotal:"] * 1024


@metric
def disk_used_bytes(machine: Machine) -> int:
    """Space in use on the disk that jobs work on."""
    disk = os.statvfs(_existing(machine.disk))
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


@metric
def disk_total_bytes(machine: Machine) -> int:
    """Size of the disk that jobs work on."""
    disk = os.statvfs(_existing(machine.disk))
    return disk.f_blocks * disk.f_frsize


@metric
def disk_inodes_used_count(machine: Machine) -> int:
    """Files and folders on the disk that jobs work on."""
    disk = os.statvfs(_existing(machine.disk))
    return disk.f_files - disk.f_ffree


@metric
def disk_inodes_total_count(machine: Machine) -> int:
    """How many files and folders fit on that disk; 0: as many as there is space."""
    return os.statvfs(_existing(machine.disk)).f_files


@metric
def pressure(machine: Machine) -> dict[str, dict[str, float | None]]:
    """Percent of the last ten seconds that some, or all, tasks waited for a resource.

    Empty where the kernel has no pressure stall information (PSI).
    """
    return {name: _stalls(machine.text(f"pressure/{name}")) for name in _told(machine)}


@metric
def oom_kills(machine: Machine) -> int:
    """Processes that the kernel killed for want of memory since the agent began."""
    return max(0, _oom_kills(machine) - machine.earlier_oom_kills)


@metric
def clock_offset_ms(machine: Machine) -> float | None:
    """The controller's clock minus the machine's, in milliseconds."""
    return machine.clock_offset_ms


@metric
def network(machine: Machine) -> dict[str, int]:
    """Bytes, errors and drops of the machine's network devices since boot.

    Bridges and containers' ends are left out: they would count the same bytes again.
    """
    devices = dict(_devices(machine.text("net/dev")))
    known = f"{machine.sys}/class/net"
    real = {name for name in devices if os.path.exists(f"{known}/{name}/device")}
    counted = real or devices.keys() - {"lo"}
    return {
        name: sum(int(devices[device][column]) for device in counted)
        for name, column in NETWORK_COLUMNS.items()
    }


def _content(path: str) -> str:
    # Not `Path.read_text`: its text layer left the sampler 0.1 MB larger.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while piece := os.read(descriptor, PIECE_BYTES):
            content += piece
    finally:
        os.close(descriptor)
    return content.decode("ascii", "replace")


def _ticks(machine: Machine) -> tuple[int, int]:
    # user nice system idle iowait irq softirq steal; a guest's time is in user's.
    fields = machine.text("stat").split("\n", 1)[0].split()[1:9]
    ticks = [int(field) for field in fields]
    every = sum(ticks)
    return every - ticks[3] - ticks[4], every


def _named_numbers(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}


def _oom_kills(machine: Machine) -> int:
    return _named_numbers(machine.text("vmstat"))["oom_kill"]


def _existing(path: Path) -> Path:
    if os.path.exists(path):
        return path
    return next((place for place in path.parents if place.exists()), path)


def _told(machine: Machine) -> list[str]:
    folder = f"{machine.proc}/pressure"
    return [name for name in RESOURCES if os.path.exists(f"{folder}/{name}")]


def _stalls(text: str) -> dict[str, float | None]:
    # "some avg10=0.12 avg60=0.03 avg300=0.01 total=123", one line each for some and
    # full; old kernels have no full for the CPU.
    stalls: dict[str, float | None] = {"some_avg10": None, "full_avg10": None}
    for line in text.splitlines():
        kind, average, *_ = line.split()
        stalls[f"{kind}_avg10"] = float(average.removeprefix("avg10="))
    return stalls


def _devices(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines()[2:]:
        name, _, columns = line.partition(":")
        yield name.strip(), columns.split()
