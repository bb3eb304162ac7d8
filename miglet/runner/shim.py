"""The shim: a tiny process between MIGlet and the program that it launches.

It is the parent of the launched process, so that the process, its output and its exit
status outlive any death of MIGlet. When that process dies and leaves a Worker behind,
the shim adopts the Worker and records its exit status, too. It stays in memory for as
long as the runner does, so it imports next to nothing: the smallest modules of the
standard library, `connector` and `procfs`.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import time
from contextlib import suppress

from miglet.runner.connector import ChildExits
from miglet.runner.procfs import (
    START,
    USER_TICKS,
    WAITED_TICKS_END,
    all_processes,
    boot_id,
    descendants,
    identity,
    is_child,
    kill_descendants,
    named_stat,
    oldest_child,
)

#: Size at which `output` becomes `output.1`: at most twice this is on the disk.
OUTPUT_BYTES = 4 << 20
CHUNK_BYTES = 1 << 16

#: No pipe is larger (fs.pipe-max-size for ordinary users): after this much all that was
#: printed before the end of the launched process has been read.
PIPE_BYTES = 1 << 20

#: Records are padded to this, so that the last one needs no new room on a full disk.
RECORD_BYTES = 4096

#: Records in a run's folder: what was launched, how that ended, which process the
#: Worker is, and how that ended.
RUN_RECORD = "run.json"
EXIT_RECORD = "exit.json"
WORKER_RECORD = "worker.json"
WORKER_EXIT_RECORD = "worker-exit.json"

#: What the kernel calls the runner's Worker (comm in proc(5)). Any process can take
#: that name, so it counts only together with the parent; /proc/PID/exe would need
#: CAP_SYS_PTRACE.
WORKER_NAME = b"Runner.Worker"

#: Between two rounds of killing: a process that is stuck in the kernel may stay there
#: for hours.
FIRST_KILL_PAUSE_MS = 5
LONGEST_KILL_PAUSE_MS = 1000

#: linux/prctl.h
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

IGNORED = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGTSTP"]


def record(folder: str, name: str, document: dict) -> None:
    """Write `document` so that a reader sees all of it or nothing, crash or not."""
    written = reserve(folder, name, json.dumps(document))
    os.replace(written, f"{folder}/{name}")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def reserve(folder: str, name: str, text: str = "") -> str:
    """Put `text`, padded, where `record` writes before it renames; the path."""
    path = f"{folder}/.{name}"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb", 0) as file:
        file.write(text.encode().ljust(RECORD_BYTES))
        os.fsync(file.fileno())
    return path


def exit_status(wait_status: int) -> dict:
    """The JSON form of a wait status, with the present as the time of the end."""
    code = os.waitstatus_to_exitcode(wait_status)
    return {
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "ended_at": time.time(),
    }


def exit_record(wait_status: int) -> dict:
    """How a child ended, and what all our children and their descendants have used.

    CPU time includes that of descendants which nobody has waited for: when the Listener
    is killed during a job, nearly all of it is still the Worker's.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    collected_seconds = used.ru_utime + used.ru_stime
    return {
        **exit_status(wait_status),
        "cpu_seconds": round(collected_seconds + uncollected_cpu_seconds(), 3),
        "max_memory_bytes": used.ru_maxrss * 1024,
        "io_read_bytes": used.ru_inblock * 512,
        "io_write_bytes": used.ru_oublock * 512,
    }


def uncollected_cpu_seconds() -> float:
    """CPU time of our descendants, living and zombies, and of those they waited for."""
    present = all_processes()
    stats = [present[pid] for pid in descendants(os.getpid(), present)]
    ticks = [int(each) for stat in stats for each in stat[USER_TICKS:WAITED_TICKS_END]]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


class Output:
    """The last few megabytes of what was printed, in `output.1` and `output`.

    Plain bytes, stdout and stderr as they came; readers follow the renaming.
    """

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/output"
        self.open()

    def open(self) -> None:
        """Begin a new file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.file = os.open(self.path, flags, 0o600)
        self.room = OUTPUT_BYTES

    def write(self, chunk: bytes) -> None:
        """Append `chunk`; what does not fit on a full disk is lost, nothing else."""
        if len(chunk) > self.room:
            self.rotate()
        self.room -= len(chunk)
        try:
            left = chunk[os.write(self.file, chunk) :]
        except OSError:
            left = chunk
        if left:
            self.make_room(left)

    def rotate(self) -> None:
        """Drop everything but the last `OUTPUT_BYTES`."""
        os.close(self.file)
        os.replace(self.path, f"{self.path}.1")
        self.open()

    def make_room(self, chunk: bytes) -> None:
        """Drop the older file of a full disk: the newest lines have the result."""
        try:
            os.truncate(f"{self.path}.1", 0)
            os.write(self.file, chunk)
        except OSError:
            self.room += len(chunk)


class Shim:
    """Starts one process, reads its output, reaps its descendants, records its end.

    Of its Worker it records what the kernel announces while the process lives, and
    what it reaps itself once the process has died.
    """

    def __init__(self, folder: str, order: dict) -> None:
        self.folder = folder
        self.order = order
        self.output = Output(folder)
        #: The wait status of the process, once it has ended.
        self.status: int | None = None
        #: Pid and start of the Worker that the process has left to us.
        self.adopted: tuple[int, int] | None = None
        self.killing = False
        self.wakeup, wakeup_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)

    def start(self) -> None:
        """Fork the process, record which it is, and only then let it go on.

        If we die before the record is written, the process reads end-of-file instead
        of the word to go, and ends: nothing ever runs unrecorded.
        """
        self.printed, printing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.printed, False)
        waiting, go = os.pipe2(os.O_CLOEXEC)
        self.child = os.fork()
        if not self.child:
            os.close(go)
            run_program(self.order, printing, waiting)
        os.close(printing)
        os.close(waiting)
        self.exits = open_exits(self.child)
        reserve(self.folder, EXIT_RECORD)
        reserve(self.folder, WORKER_EXIT_RECORD)
        record(self.folder, RUN_RECORD, self.run_record())
        os.write(go, b"g")
        os.close(go)

    def run_record(self) -> dict:
        """What was ordered, without the environment, and which processes run it."""
        kept = {key: self.order[key] for key in self.order if key != "environment"}
        processes = {"shim": identity(os.getpid()), "listener": identity(self.child)}
        return {**kept, "started_at": time.time(), **processes}

    def serve(self) -> None:
        """Read and reap until no descendant is left; kill them all when ordered to."""
        poll = select.poll()
        poll.register(self.printed, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        if self.exits:
            poll.register(self.exits, select.POLLIN)
        pause_ms = FIRST_KILL_PAUSE_MS
        while self.reap():
            if self.killing:
                kill_descendants(os.getpid())
                pause_ms = min(2 * pause_ms, LONGEST_KILL_PAUSE_MS)
            for descriptor, _ in poll.poll(pause_ms if self.killing else None):
                if descriptor == self.wakeup:
                    self.handle_signals()
                elif self.exits and descriptor == self.exits.fileno():
                    self.note_exits(self.exits)
                elif self.read_output() == b"":
                    poll.unregister(self.printed)

    def handle_signals(self) -> None:
        """SIGTERM means to kill all descendants; SIGCHLD only wakes us up."""
        if signal.SIGTERM in os.read(self.wakeup, CHUNK_BYTES):
            self.killing = True

    def read_output(self) -> bytes | None:
        """Read and write a chunk; None: none is there; empty: none will come.

        After the end of the process we go on reading, so that an orphan which still
        prints does not block, but what it prints is dropped.
        """
        try:
            chunk = os.read(self.printed, CHUNK_BYTES)
        except BlockingIOError:
            return None
        if self.status is None:
            self.output.write(chunk)
        return chunk

    def reap(self) -> bool:
        """Reap what has exited; false when there is nothing left to wait for.

        The process comes before its orphans: its end tells which of them is its Worker.
        """
        while True:
            try:
                exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if exited is None:
                return True
            if self.status is None:
                pid, status = os.waitpid(self.child, os.WNOHANG)
                if pid:
                    self.record_exit(status)
                    continue
            pid, status = os.waitpid(exited.si_pid, 0)
            if self.adopted and pid == self.adopted[0]:
                self.record_worker_exit(*self.adopted, exit_record(status))

    def record_exit(self, status: int) -> None:
        """Read the rest of the output, then record the end: who sees it can read all.

        The same holds for the Worker: who sees the end knows whether we adopted one.
        """
        read = 0
        while read < PIPE_BYTES and (chunk := self.read_output()):
            read += len(chunk)
        self.status = status
        if self.exits:
            self.note_exits(self.exits)
        self.adopted = self.adopted_worker()
        record(self.folder, EXIT_RECORD, exit_record(status))

    def adopted_worker(self) -> tuple[int, int] | None:
        """Our child that is the Worker of the process that has just ended, if any.

        Any orphan of a job can take the name; the Worker is the one that was recorded
        while its parent lived, else the oldest.
        """
        if worker := recorded_worker(self.folder):
            return worker if is_child(*worker, os.getpid()) else None
        if worker := oldest_child(os.getpid(), WORKER_NAME):
            self.record_worker(*worker)
        return worker

    def note_exits(self, exits: ChildExits) -> None:
        """Record the Worker's end if it is among the announced ones."""
        for pid, status in exits.read():
            worker = recorded_worker(self.folder)
            name, stat = named_stat(pid) or (b"", [])
            if worker is None and name == WORKER_NAME:
                worker = pid, int(stat[START])
                self.record_worker(*worker)
            if worker and worker[0] == pid:
                self.record_worker_exit(*worker, exit_status(status))

    def record_worker(self, pid: int, start: int) -> None:
        """Record which process the Worker is, unless the disk is full."""
        worker = {"pid": pid, "start_time": start, "boot_id": boot_id()}
        with suppress(OSError):
            record(self.folder, WORKER_RECORD, worker)

    def record_worker_exit(self, pid: int, start: int, how: dict) -> None:
        """Record how the Worker ended, unless the disk is full."""
        worker = {"pid": pid, "start_time": start}
        with suppress(OSError):
            record(self.folder, WORKER_EXIT_RECORD, {**worker, **how})


def open_exits(parent: int) -> ChildExits | None:
    """The exits of the children of `parent`; None where the kernel announces none."""
    try:
        return ChildExits(parent)
    except OSError:
        return None


def recorded_worker(folder: str) -> tuple[int, int] | None:
    """The pid and start of the Worker that is recorded."""
    try:
        with open(f"{folder}/{WORKER_RECORD}", "rb") as file:
            worker = json.load(file)
        return worker["pid"], worker["start_time"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_program(order: dict, printing: int, waiting: int) -> None:
    """In the forked child: become the ordered program; never returns.

    Exits with 127 if it does not exist and with 126 if it cannot be run, as shells do.
    """
    code = 126
    try:
        if os.read(waiting, 1):
            prepare_process(order, printing)
            os.execve(order["argv"][0], order["argv"], order["environment"])
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        os.write(
            printing, f"miglet: cannot start {order['argv'][0]}: {error}\n".encode()
        )
    finally:
        os._exit(code)


def prepare_process(order: dict, printing: int) -> None:
    """Set session, signals, streams, user and directory of the ordered process."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # .NET keeps an inherited SIG_IGN, and would ignore SIGINT for ever
        signal.signal(number, signal.SIG_DFL)
    set_oom_score(order.get("oom_score_adj"))
    os.dup2(printing, 1)
    os.dup2(printing, 2)
    if order["account"]:
        become_user(order["account"], printing)
    os.umask(order["umask"])
    os.chdir(order["directory"])


def set_oom_score(wanted: int | None, path: str = "/proc/self/oom_score_adj") -> None:
    """Set how likely the kernel is to kill us when memory is short (proc(5)).

    None: the inherited score, without the protection that the agent may have. Lowering
    it needs CAP_SYS_RESOURCE; without that the inherited one stays.
    """
    with open(path, encoding="ascii") as file:
        inherited = int(file.read())
    score = max(inherited, 0) if wanted is None else wanted
    if score != inherited:
        with suppress(PermissionError), open(path, "w", encoding="ascii") as file:
            file.write(str(score))


def become_user(account: dict, printing: int) -> None:
    """Become `account` for good, streams included: it must be able to open them."""
    os.fchown(printing, account["uid"], account["gid"])
    os.setgroups(account["groups"])
    os.setresgid(account["gid"], account["gid"], account["gid"])
    os.setresuid(account["uid"], account["uid"], account["uid"])


def detach() -> None:
    """Detach from the process that started us, and adopt every orphan below us."""
    os.chdir("/")
    os.umask(0o077)
    for name in IGNORED:
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    prctl(PR_SET_NAME, b"miglet-shim", 0, 0, 0)


def report_start(descriptor: int) -> None:
    """Report to the launcher, unless it has died, that the program runs."""
    try:
        os.write(descriptor, b"started")
    except BrokenPipeError:
        return
    finally:
        os.close(descriptor)


def read_order() -> dict:
    """The order, from stdin until its end; nothing can be read there afterwards."""
    with open(0, "rb", closefd=False) as stdin:
        text = stdin.read()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return json.loads(text)


def run(folder: str, order: dict, lock: int, report: int) -> int:
    """Start what is ordered, report that, serve it; its exit code for a shell.

    `lock` stays open, and with it held, until we end: no other run can be started.
    """
    for descriptor in (lock, report):
        os.set_inheritable(descriptor, False)
    shim = Shim(folder, order)
    shim.start()
    report_start(report)
    shim.serve()
    if shim.exits:
        shim.exits.close()
    assert shim.status is not None
    code = os.waitstatus_to_exitcode(shim.status)
    return code if code >= 0 else 128 - code


def main(folder: str, lock: str, report: str) -> None:
    """Be the shim in a session of our own: the started process itself ends at once."""
    if os.fork():
        os._exit(0)
    detach()
    run(folder, read_order(), int(lock), int(report))
