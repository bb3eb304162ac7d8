"""The Worker of a run: which process it is, when it ended and with which exit status.

A job runs as the user of its runner: it can write whatever the Listener prints or
logs. It cannot change what the kernel says about the Worker process, so a job has ended
when its Worker has, and with that status. The Worker is no child of MIGlet; there are
three ways to its status:

- `PIDFD_GET_INFO`, from Linux 6.15 on, once its parent has reaped it;
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

from miglet.runner.identity import ProcessIdentity
from miglet.runner.procfs import START, oldest_child, stat_of
from miglet.runner.records import ExitStatus, exit_status_of, read_record
from miglet.runner.shim import (
    WORKER_EXIT_RECORD,
    WORKER_NAME,
    WORKER_RECORD,
    exit_status,
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
        """`folder` is the run's; `pidfd` None: the process has been reaped already."""
        self.folder = folder
        self.identity = identity
        self._pidfd = pidfd
        self._status: ExitStatus | None = None

    def fileno(self) -> int | None:
        """A descriptor that is readable once the Worker has ended; None: it has."""
        return self._pidfd

    def ended(self) -> bool:
        """Whether it has ended, though its parent may not have reaped it yet."""
        if self._pidfd is None:
            return True
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def exit_status(self) -> ExitStatus | None:
        """How it ended; None while it lives, and as long as that is not known.

        The status may come some milliseconds after the end: when its parent reaps it,
        or with the shim's record, which inotify shows in the run's folder.
        """
        if self._status is None and self.ended():
            self._status = recorded_exit(self.folder, self.identity)
            if self._status is None and self._pidfd is not None:
                self._status = reaped_status(self._pidfd)
        return self._status

    def signal(self, number: int) -> bool:
        """Signal the Worker alone; false if it has ended or we may not signal it."""
        return self.identity.signal(number)

    def close(self) -> None:
        """Close the descriptor; the Worker goes on."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def find_worker(
    folder: Path, listener: ProcessIdentity, shim: ProcessIdentity
) -> WorkerProcess | None:
    """The run's Worker: the one that lives, else the last one that is known.

    The Listener's child of that name is recorded, so that it is still known when the
    Listener has died, to a successor of ours, too. A child of the shim is the Worker
    only when none was ever recorded: the shim's children are orphans of the job, and
    any of them can take the name.
    """
    known = recorded_worker(folder)
    if known and known.alive():
        return WorkerProcess(folder, known, open_pidfd(known))
    found = worker_below(listener)
    if known is None and found is None and not listener.alive():
        found = worker_below(shim)
    if found and found != known:
        record_worker(folder, found)
    worker = found or known
    return WorkerProcess(folder, worker, open_pidfd(worker)) if worker else None


def worker_below(parent: ProcessIdentity) -> ProcessIdentity | None:
    """The child of `parent` that has the Worker's name.

    It is older than whatever its job has started.
    """
    found = oldest_child(parent.pid, WORKER_NAME)
    if found is None or not parent.alive():
        return None
    return ProcessIdentity(*found, parent.boot_id)


def open_pidfd(process: ProcessIdentity) -> int | None:
    """A pidfd of this very process, a zombie included; None: it has been reaped."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return None
    stat = stat_of(process.pid)
    if stat and int(stat[START]) == process.start_time:
        return pidfd
    os.close(pidfd)
    return None


def reaped_status(pidfd: int) -> ExitStatus | None:
    """The exit status of a process that has been reaped (PIDFD_GET_INFO).

    None: it has not been reaped yet, or this kernel is older than 6.15.
    """
    answer = bytearray(PIDFD_INFO.pack(PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, answer)
    except OSError:
        return None
    present, wait_status = PIDFD_INFO.unpack(answer)
    known = present & PIDFD_INFO_EXIT
    return ExitStatus(**exit_status(wait_status)) if known else None


def record_worker(folder: Path, worker: ProcessIdentity) -> None:
    """Record which process the Worker is."""
    try:
        record(str(folder), WORKER_RECORD, worker.as_json())
    except OSError as error:
        log.warning("cannot record the job's Worker in %s: %s", folder, error)


def recorded_worker(folder: Path) -> ProcessIdentity | None:
    """The Worker that is recorded; None where there is no readable record."""
    try:
        return ProcessIdentity.of_json(read_record(folder / WORKER_RECORD) or {})
    except (KeyError, TypeError, ValueError):
        return None


def recorded_exit(folder: Path, worker: ProcessIdentity) -> ExitStatus | None:
    """The exit status that the shim has recorded of this Worker."""
    found = read_record(folder / WORKER_EXIT_RECORD) or {}
    if found.get("pid") != worker.pid or found.get("start_time") != worker.start_time:
        return None
    return exit_status_of(found)
