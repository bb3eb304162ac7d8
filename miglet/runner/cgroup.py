"""What the kernel knows of a control group: its processes, and what they have used.

The shim and the recorder import this: nothing but `os`. A file that this kernel, or
this group, does not have is None (Documentation/admin-guide/cgroup-v2.rst).
"""

from __future__ import annotations

import os

ROOT = "/sys/fs/cgroup"
OWN = "/proc/self/cgroup"


def own(path: str = OWN, root: str = ROOT) -> str | None:
    """The folder of our own group; None where version 2 is not all there is."""
    with open(path, encoding="utf-8") as file:
        groups = [line.rstrip("\n") for line in file]
    found = [group[3:] for group in groups if group.startswith("0::/")]
    folder = root + found[0].rstrip("/") if found else ""
    return folder if os.path.exists(f"{folder}/cgroup.procs") else None


def pids(folder: str) -> list[int]:
    """The processes in the group and in those below it."""
    inside = [place for place, _, _ in os.walk(folder)]
    return [int(word) for place in inside for word in words(place, "cgroup.procs")]


def words(folder: str, name: str) -> list[str]:
    """A file of the group, split; empty where it does not exist or cannot be read."""
    try:
        with open(f"{folder}/{name}", encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []


def keyed(folder: str, name: str, key: str) -> int | None:
    """The number that follows `key` in a file of the group."""
    found = words(folder, name)
    return int(found[found.index(key) + 1]) if key in found else None


def figures(folder: str) -> dict[str, float]:
    """What the group has used, as far as it is counted; memory: what it uses now."""
    counted = {
        "cpu_seconds": cpu_seconds(folder),
        "max_memory_bytes": memory_bytes(folder),
        "io_read_bytes": io_bytes(folder, "rbytes"),
        "io_write_bytes": io_bytes(folder, "wbytes"),
    }
    return {name: figure for name, figure in counted.items() if figure is not None}


def cpu_seconds(folder: str) -> float | None:
    """CPU time of all processes that are, or ever were, in the group."""
    used = keyed(folder, "cpu.stat", "usage_usec")
    return None if used is None else round(used / 1e6, 3)


def memory_bytes(folder: str) -> int | None:
    """The working set: all memory but what the kernel could drop at once.

    That is the container world's measure (kubelet's `memory_working_set_bytes`). Of
    `memory.peak` most is page cache as soon as a job has written much.
    """
    total = words(folder, "memory.current")
    idle = keyed(folder, "memory.stat", "inactive_file")
    return max(0, int(total[0]) - (idle or 0)) if total else None


def io_bytes(folder: str, key: str) -> int | None:
    """Bytes that the group has read (`rbytes`) or written (`wbytes`), on all disks."""
    if not os.path.exists(f"{folder}/io.stat"):
        return None
    pairs = [word.partition("=") for word in words(folder, "io.stat")]
    return sum(int(value) for name, _, value in pairs if name == key)


def oom_kills(folder: str) -> int | None:
    """How many in the group the kernel has killed for lack of memory."""
    return keyed(folder, "memory.events", "oom_kill")
