"""One launched program, for the launcher that started it and for its successors.

All that is known of a run is in its folder, which the shim writes; a `Run` holds no
process and no descriptor, so it can be found again after any death of MIGlet.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from miglet.errors import RunnerError
from miglet.messages.codec import Value, frozen_value
from miglet.runner.identity import ProcessIdentity
from miglet.runner.procfs import (
    SESSION,
    START,
    all_processes,
    descendants,
    snapshot,
)
from miglet.runner.records import (
    ExitStatus,
    discard,
    read_record,
    recorded_exit,
    tail,
    unit_record,
    unknown_exit,
)
from miglet.runner.shim import EXIT_RECORD, RUN_RECORD
from miglet.runner.unit import Unit
from miglet.runner.usage import Usage, usage_of
from miglet.runner.worker_process import WorkerProcess, find_worker

#: How long `ended` waits for the shim to record an end that has just happened.
RECORD_SECONDS = 0.5

#: The file in a run's folder that says that its end has been reported.
REPORTED = "settled"


class RunnerPresent(RunnerError):
    """A run lives, or has ended and was not reported; there is only ever one."""

    hint = "wait for its end or kill it, then forget it"


@frozen_value
class Run(Value):
    """A program that the launcher started in this boot, living or ended."""

    folder: Path
    run_id: str
    name: str
    argv: tuple[str, ...]
    #: The program's working directory: the runner's root.
    directory: Path
    #: Where job hooks report; None when there are none.
    job_directory: Path | None
    #: Wall time.
    started_at: float
    shim: ProcessIdentity
    listener: ProcessIdentity
    #: What it printed, stdout and stderr as they came; older parts in `output.1`.
    output_path: Path
    #: Where the runner writes its logs.
    diag_directory: Path
    #: Runner logs that existed before it, with their sizes.
    earlier_logs: Mapping[str, int]
    #: The transient unit that it has to itself; None: only a session of its own.
    unit: Unit | None = None

    @classmethod
    def found_in(cls, folder: Path) -> Run | None:
        """The run that `folder` has a record of; None where that cannot be read."""
        document = read_record(folder / RUN_RECORD)
        try:
            return document and run_of(folder, document) or None
        except (KeyError, TypeError, ValueError):
            return None

    def printed(self, limit_bytes: int = 1 << 16) -> str:
        """The end of what it printed, with whatever is not UTF-8 replaced."""
        older = self.output_path.with_name("output.1")
        tails = [tail(path, limit_bytes) for path in (older, self.output_path)]
        return b"".join(tails)[-limit_bytes:].decode(errors="replace")

    def alive(self) -> bool:
        """Whether the program itself lives, whatever became of its descendants."""
        return self.listener.alive()

    def worker(self) -> WorkerProcess | None:
        """The runner's Worker, living or ended; None: none has been seen so far.

        The caller closes it, and keeps it rather than ask again: while there is none,
        each call reads some files of /proc.
        """
        return find_worker(self.folder, self.listener, self.shim)

    def orphaned(self) -> bool:
        """Whether the Listener has died and its Worker goes on with the job."""
        worker = None if self.alive() else self.worker()
        if worker is None:
            return False
        with closing(worker):
            return not worker.ended()

    def ended(self) -> ExitStatus | None:
        """How the program ended, whatever became of its Worker; None while it lives.

        In the moment between the end and its record this waits for the shim, half a
        second at the most; then None means that the shim has been stopped.
        """
        deadline = time.monotonic() + RECORD_SECONDS
        while True:
            # asked before the record is looked for: it may come in between
            recorder_gone = not self.shim.alive() and not self.unit_ending()
            if status := recorded_exit(self.folder / EXIT_RECORD):
                return status
            if self.alive() or time.monotonic() > deadline:
                return None
            if recorder_gone:
                return unknown_exit(self.folder)
            pause(0.002)

    def unit_ending(self) -> bool:
        """Whether systemd is about to record what the shim did not."""
        present = self.unit is not None and self.unit.present()
        return present and not unit_record(self.folder)

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for lack of memory.

        Only a unit counts them, while it lives and after its end.
        """
        living = self.unit.oom_kills() if self.unit else None
        end = unit_record(self.folder)
        at_least = 1 if end.get("result") == "oom-kill" else 0
        return max(living or 0, end.get("oom_kills", 0), at_least)

    def interrupt(self) -> bool:
        """Ask the runner to end: SIGINT to the program alone.

        A Worker without its Listener ignores SIGINT and takes SIGTERM for a shutdown
        of the machine.
        """
        if self.listener.signal(signal.SIGINT):
            return True
        worker = self.worker()
        if worker is None:
            return False
        with closing(worker):
            return worker.signal(signal.SIGTERM)

    def kill(self, seconds: float = 5.0) -> bool:
        """SIGKILL the program and all its descendants; true when none is left.

        The shim is notified first: it goes on should we die here. We kill as well, so
        that it works without the shim, and wait until it has recorded the end and is
        gone. After half of the time a shim that does not answer is killed, too. False
        after `seconds`: a process that is stuck in the kernel ends when that lets it.
        """
        self.shim.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        shim_deadline = deadline - seconds / 2
        empty = 0
        while empty < 2 or self.shim.alive() or (self.unit and self.unit.present()):
            left = deadline - time.monotonic()
            if left < 0:
                return False
            doomed = self.tree()
            empty = 0 if doomed else empty + 1
            for process in doomed:
                process.signal(signal.SIGKILL)
            if time.monotonic() > shim_deadline:
                shim_deadline = deadline
                self.kill_shim(left)
            pause(0.005)
        return True

    def kill_shim(self, seconds: float) -> None:
        """SIGKILL a shim that does not end; with its unit, where it has one.

        It is left alone while others live: it holds the lock against another run.
        """
        if self.unit:
            self.unit.kill(seconds)
        elif not self.tree():
            self.shim.signal(signal.SIGKILL)

    def tree(self) -> list[ProcessIdentity]:
        """The living processes of the run: the program and all its descendants.

        Without a shim orphans have another parent: then those in the program's session
        are found, and those that left it are not.
        """
        processes = snapshot()
        boot = self.listener.boot_id
        return [
            ProcessIdentity(pid, int(processes[pid][START]), boot)
            for pid in sorted(self.members(processes))
        ]

    def members(self, processes: Mapping[int, list[bytes]]) -> set[int]:
        """The pids of the run's processes in a snapshot."""
        roots = [who.pid for who in (self.shim, self.listener) if who.alive()]
        found = {pid for root in roots for pid in descendants(root, processes)}
        found |= {self.listener.pid} & set(roots)
        if not self.shim.alive():
            found |= self.session(processes)
        elif self.unit:
            found |= set(self.unit.pids()) - {self.shim.pid}
        return found & processes.keys()

    def session(self, processes: Mapping[int, list[bytes]]) -> set[int]:
        """The pids in the program's session; none once another process has its pid."""
        leader = self.listener
        if leader.pid in processes and not leader.alive():
            return set()
        return {
            pid
            for pid, stat in processes.items()
            if int(stat[SESSION]) == leader.pid
            and int(stat[START]) >= leader.start_time
        }

    def usage(self) -> Usage:
        """What the run uses now; `UsageSampler` keeps the peak.

        Processes are looked at only for what the control group does not count.
        """
        measured = self.unit.figures() if self.unit else {}
        if measured.keys() >= Usage.__dataclass_fields__.keys():
            return Usage(**measured)
        # Nobody has the CPU time of a zombie yet.
        processes = all_processes()
        shim = self.shim.pid if self.shim.alive() else None
        counted = usage_of(processes, self.members(processes), shim)
        return replace(counted, **measured)

    def wait_descriptor(self) -> int | None:
        """A pidfd that is readable when the program has ended; the caller closes it.

        None: it has ended already.
        """
        try:
            descriptor = os.pidfd_open(self.listener.pid)
        except ProcessLookupError:
            return None
        if self.alive():
            return descriptor
        os.close(descriptor)
        return None

    def mark_reported(self) -> None:
        """Record that all of it has been reported: MIGlet does not report it again.

        Raises OSError on a full disk.
        """
        (self.folder / REPORTED).touch(mode=0o600)

    @property
    def reported(self) -> bool:
        """Whether all of it has been reported."""
        return (self.folder / REPORTED).exists()

    def forget(self) -> None:
        """Remove all that is known of an ended run; RunnerPresent if it lives."""
        if self.alive():
            raise RunnerPresent(f"{self.name} (pid {self.listener.pid}) still lives")
        if self.orphaned():
            raise RunnerPresent(f"the Worker of {self.name} has not finished its job")
        discard(self.folder)


def run_of(folder: Path, document: Mapping[str, Any]) -> Run:
    """Read the shim's record; raises KeyError, TypeError or ValueError."""
    job_directory = document["job_directory"]
    return Run(
        folder,
        str(document["run_id"]),
        str(document["name"]),
        tuple(map(str, document["argv"])),
        Path(document["directory"]),
        Path(job_directory) if job_directory else None,
        float(document["started_at"]),
        ProcessIdentity.of_json(document["shim"]),
        ProcessIdentity.of_json(document["listener"]),
        folder / "output",
        # Not in the record of a run that an earlier version launched.
        Path(document.get("diag_directory") or f"{document['directory']}/_diag"),
        {str(k): int(v) for k, v in document.get("earlier_logs", {}).items()},
        Unit.of_json(document["unit"]) if document.get("unit") else None,
    )


def pause(seconds: float) -> None:
    """Wait a moment for what no descriptor announces."""
    select.select([], [], [], seconds)
