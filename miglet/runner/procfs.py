"""Processes, read from /proc and signalled through pidfds.

The shim imports this: only the smallest modules of the standard library. A pid alone
identifies no process; here that is its pid and the clock tick at which it started.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

BOOT_ID = "/proc/sys/kernel/random/boot_id"

#: There if the kernel lists children (CONFIG_PROC_CHILDREN); else all are looked at.
CHILDREN_OF_THREAD = "/proc/thread-self/children"

#: Indices into what `stat_of` returns; proc(5) counts from 1 and from the pid.
STATE, PARENT, SESSION = 0, 1, 3
#: CPU time in user and kernel mode, then both of the children that were waited for.
USER_TICKS, WAITED_TICKS, WAITED_TICKS_END = 11, 13, 15
THREADS, START = 17, 19

#: No file that is read here is larger.
LARGEST_BYTES = 8192


def boot_id(path: str = BOOT_ID) -> str:
    """The kernel's name for this boot of the machine (random(4))."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def content(path: str) -> bytes:
    """What is in a small file of /proc; raises OSError.

    Without a file object, which takes as long as the kernel: there may be thousands.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, LARGEST_BYTES)
    finally:
        os.close(descriptor)


def named_stat(pid: int | str) -> tuple[bytes, list[bytes]] | None:
    """The name (comm) of a process and the fields of /proc/PID/stat after it (proc(5)).

    None: there is no such process, or it is hidden from us (`hidepid`). A zombie keeps
    its name until it is collected.
    """
    try:
        head, _, fields = content(f"/proc/{pid}/stat").rpartition(b")")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return head.partition(b"(")[2], fields.split()


def stat_of(pid: int | str) -> list[bytes] | None:
    """The fields of /proc/PID/stat after the name; None: no such process."""
    found = named_stat(pid)
    return found and found[1]


def children(pid: int) -> list[int]:
    """The children of a process, zombies included."""
    if not os.path.exists(CHILDREN_OF_THREAD):
        everybody = [(int(name), stat_of(name)) for name in entries("/proc")]
        return [one for one, stat in everybody if stat and int(stat[PARENT]) == pid]
    found: list[int] = []
    for thread in entries(f"/proc/{pid}/task"):
        # a thread may end while we read
        with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found


def is_child(pid: int, start: int, parent: int) -> bool:
    """Whether `parent` may wait for the process that is `pid` since tick `start`."""
    stat = stat_of(pid)
    if stat is None:
        return False
    return int(stat[PARENT]) == parent and int(stat[START]) == start


def oldest_child(parent: int, name: bytes) -> tuple[int, int] | None:
    """The pid and start of the oldest child of `parent` that has this name."""
    starts = []
    for pid in children(parent):
        its_name, stat = named_stat(pid) or (b"", [])
        if its_name == name and int(stat[PARENT]) == parent:
            starts.append((int(stat[START]), pid))
    if not starts:
        return None
    start, pid = min(starts)
    return pid, start


def entries(folder: str) -> list[str]:
    """The numbers among the names in a folder; none where it is gone."""
    try:
        return [name for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        return []


def is_running(stat: list[bytes]) -> bool:
    """Whether it still runs: a zombie does not, unless only its main thread ended."""
    return stat[STATE] not in b"ZX" or int(stat[THREADS]) > 1


def all_processes() -> dict[int, list[bytes]]:
    """The stat fields of every process on the machine by pid, zombies included."""
    found = {int(name): stat_of(name) for name in entries("/proc")}
    return {pid: stat for pid, stat in found.items() if stat}


def snapshot() -> dict[int, list[bytes]]:
    """The stat fields of every running process on the machine, by pid."""
    return {pid: stat for pid, stat in all_processes().items() if is_running(stat)}


def descendants(root: int, processes: Mapping[int, list[bytes]]) -> list[int]:
    """The processes below `root` among `processes`, parents before children."""
    children: dict[int, list[int]] = {}
    for pid, stat in processes.items():
        children.setdefault(int(stat[PARENT]), []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.pop(waiting.pop(0), [])
        found += below
        waiting += below
    return found


def send_signal(pid: int, start: int, number: int) -> bool:
    """Signal the process that is `pid` since tick `start`, and no other.

    False: it has ended, or we may not signal it. The start time is compared after a
    pidfd has been opened, so that a process which reuses the pid is never hit.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        stat = stat_of(pid)
        if stat is None or int(stat[START]) != start:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True


def kill_descendants(root: int) -> int:
    """SIGKILL everything below `root`; the number of processes.

    All are stopped first, over and over until no new one is found: a stopped process
    cannot fork, so a fork bomb does not outrun the killing.
    """
    found: dict[int, int] = {}
    for _ in range(50):
        processes = snapshot()
        new = [pid for pid in descendants(root, processes) if pid not in found]
        for pid in new:
            found[pid] = int(processes[pid][START])
            send_signal(pid, found[pid], signal.SIGSTOP)
        if not new:
            break
    for pid, start in found.items():
        send_signal(pid, start, signal.SIGKILL)
    return len(found)


def identity(pid: int) -> dict:
    """The JSON form of a `ProcessIdentity`, without importing it; `pid` must exist."""
    stat = stat_of(pid)
    assert stat is not None
    return {"pid": pid, "start_time": int(stat[START]), "boot_id": boot_id()}
