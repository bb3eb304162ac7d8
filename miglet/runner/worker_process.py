"""The Worker of a run: which process it is, when it ended and with which exit status.

A job runs as the user of its runner: it can write whatever the Listener prints or
logs. The kernel's word on the end of the Worker process is beyond its reach, so a job
has ended when its Worker has, and with that status. The Worker is no child of MIGlet;
three ways lead to its status:

- `PIDFD_GET_INFO`, from Linux 6.15 on, once its parent has collected it;
- the shim's record of what the process connector announced;
- the shim's record of its own `waitpid`, once the Listener has died.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import struct
from pathlib import Path

from miglet.runner.exitstatus import STATUS_KEYS, ExitStatus, only
from miglet.runner.identity import ProcessIdentity
from miglet.runner.procfs import START, oldest_child, stat_of
from miglet.runner.records import read_record
from miglet.runner.shim import (
    WORKER_EXIT_RECORD,
    WORKER_NAME,
    WORKER_RECORD,
    exit_of,
    record,
)

log = logging.getLogger(__name__)

#: linux/pidfd.h: an ioctl with 64 bytes, of which the first 8 say what is asked for
#: and then what is there; the wait status stands at 60.
PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO = struct.Struct("=Q52xi")
PIDFD_INFO_EXIT = 1 << 3


class WorkerProcess:
    """One Worker, held by a pidfd from its discovery until `close`."""

    def __init__(
        self, folder: Path, identity: ProcessIdentity, pidfd: int | None
    ) -> None:
        """`folder` is the run's; `pidfd` None: the process has gone already."""
        self.folder = folder
        self.identity = identity
        self._pidfd = pidfd

    def fileno(self) -> int | None:
        """A descriptor that is readable once the Worker has ended; None: it has."""
        return self._pidfd

    def ended(self) -> bool:
        """Whether it has ended, though its parent may not have collected it yet."""
        if self._pidfd is None:
            return True
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def exit_status(self) -> ExitStatus | None:
        """How it ended; None while it lives, and as long as nobody can tell.

        The status may come some milliseconds after the end: with the collection by
        its parent, or with the shim's record, which shows as a change of the folder.
        """
        if not self.ended():
            return None
        recorded = recorded_exit(self.folder, self.identity)
        if recorded or self._pidfd is None:
            return recorded
        status = exit_info(self._pidfd)
        return None if status is None else ExitStatus(**exit_of(status))

    def signal(self, number: int) -> bool:
        """Signal the Worker alone; false when it is gone or not ours to signal."""
        return self.identity.signal(number)

    def close(self) -> None:
        """Give the descriptor back; the Worker goes on."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def find_worker(
    folder: Path, listener: ProcessIdentity, shim: ProcessIdentity
) -> WorkerProcess | None:
    """The run's Worker: the one that lives, else the last one that is known of.

    The Listener's child by that name is written down, so that whoever comes after us
    knows it too when the Listener has died. A child of the shim is the Worker only
    when none was ever written down: the shim's children are orphans of the job, and
    any of them may have taken the name.
    """
    known = recorded_worker(folder)
    if known and known.alive():
        return WorkerProcess(folder, known, pinned(known))
    fresh = worker_below(listener)
    if known is None and fresh is None and not listener.alive():
        fresh = worker_below(shim)
    if fresh and fresh != known:
        remember(folder, fresh)
    worker = fresh or known
    return WorkerProcess(folder, worker, pinned(worker)) if worker else None


def worker_below(parent: ProcessIdentity) -> ProcessIdentity | None:
    """The child of `parent` that has the Worker's name.

    It is older than whatever its job has started.
    """
    found = oldest_child(parent.pid, WORKER_NAME)
    if found is None or not parent.alive():
        return None
    return ProcessIdentity(*found, parent.boot_id)


def pinned(process: ProcessIdentity) -> int | None:
    """A pidfd of this very process, a zombie included; None: it is gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return None
    stat = stat_of(process.pid)
    if stat and int(stat[START]) == process.start_time:
        return pidfd
    os.close(pidfd)
    return None


def exit_info(pidfd: int) -> int | None:
    """The wait status of a process whose parent has collected it (PIDFD_GET_INFO).

    None: it has not yet been collected, or this kernel does not tell (before 6.15).
    """
    answer = bytearray(PIDFD_INFO.pack(PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, answer)
    except OSError:
        return None
    there, wait_status = PIDFD_INFO.unpack(answer)
    return wait_status if there & PIDFD_INFO_EXIT else None


def remember(folder: Path, worker: ProcessIdentity) -> None:
    """Write down which process the Worker is."""
    try:
        record(str(folder), WORKER_RECORD, worker.as_json())
    except OSError as error:
        log.warning("cannot record the job's Worker in %s: %s", folder, error)


def recorded_worker(folder: Path) -> ProcessIdentity | None:
    """The Worker that is written down; None: none, or nothing that can be read."""
    try:
        return ProcessIdentity.of_json(read_record(folder / WORKER_RECORD) or {})
    except (KeyError, TypeError, ValueError):
        return None


def recorded_exit(folder: Path, worker: ProcessIdentity) -> ExitStatus | None:
    """What the shim has recorded of this Worker's end."""
    record = read_record(folder / WORKER_EXIT_RECORD) or {}
    if record.get("pid") != worker.pid or record.get("start_time") != worker.start_time:
        return None
    return ExitStatus(**only(record, STATUS_KEYS))
