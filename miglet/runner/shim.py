"""The runner's keeper: a tiny process between MIGlet and the program it launches.

It owns the launched process, so that the process, its output and its exit status
outlive any death of MIGlet. It stays in memory for as long as the runner does, so it
imports next to nothing: the standard library's smallest parts, and `processes`.
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

from miglet.runner.capped import CHUNK_BYTES, Output
from miglet.runner.connector import ChildExits
from miglet.runner.procfs import (
    START,
    USER_TICKS,
    WAITED_TICKS_END,
    boot_id,
    census,
    descendants,
    end_all,
    identity,
    is_child,
    named_stat,
    oldest_child,
)

#: No pipe holds more (fs.pipe-max-size for the unprivileged): what was printed before
#: the launched process ended has been read after this much.
PIPE_BYTES = 1 << 20

#: Records are padded to this, so that the last one needs no new room on a full disk.
RECORD_BYTES = 4096

#: What the kernel calls the runner's Worker (comm in proc(5)). Any process can take
#: that name, so it counts only together with the parent; /proc/PID/exe would need
#: CAP_SYS_PTRACE.
WORKER_NAME = b"Runner.Worker"

#: Files in a run's folder: which process the Worker is, and how it ended.
WORKER_RECORD = "worker.json"
WORKER_EXIT_RECORD = "worker-exit.json"

#: Between two rounds of killing: a process that the kernel does not let end may be left
#: for hours.
FIRST_KILL_PAUSE_MS = 5
LONGEST_KILL_PAUSE_MS = 1000

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


def exit_of(status: int) -> dict:
    """How a process ended, from its wait status, and when: now."""
    code = os.waitstatus_to_exitcode(status)
    return {
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "ended_at": time.time(),
    }


def ending(status: int) -> dict:
    """The exit record: how it ended, and what it and its descendants have used.

    CPU time includes that of descendants which live on: when the Listener is killed
    during a job, nearly all of it is still the Worker's.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **exit_of(status),
        "cpu_seconds": round(used.ru_utime + used.ru_stime + owed_seconds(), 3),
        "max_memory_bytes": used.ru_maxrss * 1024,
        "io_read_bytes": used.ru_inblock * 512,
        "io_write_bytes": used.ru_oublock * 512,
    }


def owed_seconds() -> float:
    """CPU time of our living descendants, and of those that they waited for."""
    people = census()
    below = [people[pid] for pid in descendants(os.getpid(), people)]
    ticks = [
        int(field) for stat in below for field in stat[USER_TICKS:WAITED_TICKS_END]
    ]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


class Shim:
    """Starts one process, pumps its output, reaps its family, records its end.

    The end of its Worker is recorded too: what the kernel announces of it while the
    process lives, and what we collect ourselves once that has died and left us its
    Worker.
    """

    def __init__(self, folder: str, order: dict) -> None:
        self.folder = folder
        self.order = order
        self.output = Output(folder)
        self.status: int | None = None
        #: Pid and start of the Worker that we have adopted.
        self.adopted: tuple[int, int] | None = None
        self.told_to_kill = False
        self.bell, bell_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(bell_end, warn_on_full_buffer=False)

    def start(self) -> None:
        """Fork the process, record who it is, and only then let it begin.

        Should we die before the record is written, the process reads end-of-file
        instead of the word to go, and ends: nothing ever runs unrecorded.
        """
        self.printed, printing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.printed, False)
        waiting, word = os.pipe2(os.O_CLOEXEC)
        self.child = os.fork()
        if not self.child:
            os.close(word)
            begin(self.order, printing, waiting)
        os.close(printing)
        os.close(waiting)
        self.exits = announced_exits(self.child)
        reserve(self.folder, "exit.json")
        reserve(self.folder, WORKER_EXIT_RECORD)
        record(self.folder, "run.json", self.recorded())
        os.write(word, b"g")
        os.close(word)

    def recorded(self) -> dict:
        """The run record: what was ordered without the environment, and who runs it."""
        kept = {key: self.order[key] for key in self.order if key != "environment"}
        keeper, child = identity(os.getpid()), identity(self.child)
        return {**kept, "started_at": time.time(), "shim": keeper, "listener": child}

    def serve(self) -> None:
        """Pump and reap until nobody is left; kill everybody when told to."""
        poll = select.poll()
        poll.register(self.printed, select.POLLIN)
        poll.register(self.bell, select.POLLIN)
        if self.exits:
            poll.register(self.exits, select.POLLIN)
        pause_ms = FIRST_KILL_PAUSE_MS
        while self.reap():
            if self.told_to_kill:
                end_all(os.getpid())
                pause_ms = min(2 * pause_ms, LONGEST_KILL_PAUSE_MS)
            for descriptor, _ in poll.poll(pause_ms if self.told_to_kill else None):
                if descriptor == self.bell:
                    self.hear()
                elif self.exits and descriptor == self.exits.fileno():
                    self.note_exits(self.exits)
                elif self.pump() == b"":
                    poll.unregister(self.printed)

    def hear(self) -> None:
        """SIGTERM means kill them all; SIGCHLD only wakes us up."""
        if signal.SIGTERM in os.read(self.bell, CHUNK_BYTES):
            self.told_to_kill = True

    def pump(self) -> bytes | None:
        """Read what is there and keep it; None: nothing there; empty: never again.

        After the end of the process we go on reading, so that an orphan which still
        prints is not held up, but nobody asks what it said.
        """
        try:
            chunk = os.read(self.printed, CHUNK_BYTES)
        except BlockingIOError:
            return None
        if self.status is None:
            self.output.write(chunk)
        return chunk

    def reap(self) -> bool:
        """Collect the dead; false when there is nobody left to wait for.

        The process comes before its orphans: its end tells which of them is its Worker.
        """
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if dead is None:
                return True
            if self.status is None:
                pid, status = os.waitpid(self.child, os.WNOHANG)
                if pid:
                    self.end(status)
                    continue
            pid, status = os.waitpid(dead.si_pid, 0)
            if self.adopted and pid == self.adopted[0]:
                self.record_worker_exit(*self.adopted, ending(status))

    def end(self, status: int) -> None:
        """Keep the last words, then record the end: who sees it can read them."""
        read = 0
        while read < PIPE_BYTES and (chunk := self.pump()):
            read += len(chunk)
        self.status = status
        if self.exits:
            self.note_exits(self.exits)
        self.adopted = self.adopted_worker()
        record(self.folder, "exit.json", ending(status))

    def adopted_worker(self) -> tuple[int, int] | None:
        """Our child that is the Worker of the process that has just ended, if any.

        Among a job's orphans any may have taken the name; the Worker is the one that
        was written down while its parent lived, else the oldest.
        """
        if recorded := recorded_worker(self.folder):
            return recorded if is_child(*recorded, os.getpid()) else None
        if found := oldest_child(os.getpid(), WORKER_NAME):
            self.record_worker(*found)
        return found

    def note_exits(self, exits: ChildExits) -> None:
        """Record the Worker's end if it is among the announced ones."""
        for pid, status in exits.read():
            worker = recorded_worker(self.folder)
            name, stat = named_stat(pid) or (b"", [])
            if worker is None and name == WORKER_NAME:
                worker = pid, int(stat[START])
                self.record_worker(*worker)
            if worker and worker[0] == pid:
                self.record_worker_exit(*worker, exit_of(status))

    def record_worker(self, pid: int, start: int) -> None:
        """Write down which process the Worker is; a full disk may keep us from it."""
        worker = {"pid": pid, "start_time": start, "boot_id": boot_id()}
        with suppress(OSError):
            record(self.folder, WORKER_RECORD, worker)

    def record_worker_exit(self, pid: int, start: int, how: dict) -> None:
        """Write down how the Worker ended; a full disk may keep us from it."""
        with suppress(OSError):
            worker = {"pid": pid, "start_time": start}
            record(self.folder, WORKER_EXIT_RECORD, {**worker, **how})


def announced_exits(parent: int) -> ChildExits | None:
    """The exits of the children of `parent`; None where the kernel tells us of none."""
    try:
        return ChildExits(parent)
    except OSError:
        return None


def recorded_worker(folder: str) -> tuple[int, int] | None:
    """The pid and start of the Worker that is written down."""
    try:
        with open(f"{folder}/{WORKER_RECORD}", "rb") as file:
            worker = json.load(file)
        return worker["pid"], worker["start_time"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begin(order: dict, printing: int, waiting: int) -> None:
    """In the forked child: become the ordered program; never returns.

    127: it is not there; 126: it is there and cannot be run, as shells say it.
    """
    code = 126
    try:
        if os.read(waiting, 1):
            become(order, printing)
            os.execve(order["argv"][0], order["argv"], order["environment"])
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        os.write(
            printing, f"miglet: cannot start {order['argv'][0]}: {error}\n".encode()
        )
    finally:
        os._exit(code)


def become(order: dict, printing: int) -> None:
    """Take on session, signals, streams, user and folder of the ordered process."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # .NET keeps an inherited SIG_IGN, and would be deaf to SIGINT for ever
        signal.signal(number, signal.SIG_DFL)
    set_oom_score(order.get("oom_score_adj"))
    os.dup2(printing, 1)
    os.dup2(printing, 2)
    if order["account"]:
        drop(order["account"], printing)
    os.umask(order["umask"])
    os.chdir(order["directory"])


def set_oom_score(wanted: int | None, path: str = "/proc/self/oom_score_adj") -> None:
    """Take on the ordered likelihood of being killed when memory is short (proc(5)).

    None: the inherited one, but without the protection that the agent may have. Less
    than the inherited one needs CAP_SYS_RESOURCE; without it things stay as they are.
    """
    with open(path, encoding="ascii") as file:
        inherited = int(file.read())
    score = max(inherited, 0) if wanted is None else wanted
    if score != inherited:
        with suppress(PermissionError), open(path, "w", encoding="ascii") as file:
            file.write(str(score))


def drop(account: dict, printing: int) -> None:
    """Become `account` for good, streams included: /dev/stdout must open for it."""
    os.fchown(printing, account["uid"], account["gid"])
    os.setgroups(account["groups"])
    os.setresgid(account["gid"], account["gid"], account["gid"])
    os.setresuid(account["uid"], account["uid"], account["uid"])


def settle() -> None:
    """Detach from whoever started us, and adopt every orphan below us."""
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


def answer(ready: int) -> None:
    """Say that it runs, to whoever started us, if it has not died meanwhile."""
    try:
        os.write(ready, b"started")
    except BrokenPipeError:
        return
    finally:
        os.close(ready)


def ordered() -> dict:
    """The order, from stdin until its end; nothing can be read there afterwards."""
    with open(0, "rb", closefd=False) as stdin:
        words = stdin.read()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return json.loads(words)


def keep(folder: str, order: dict, lock: int, ready: int) -> int:
    """Start what is ordered, answer on `ready`, keep it; its exit code for a shell.

    `lock` is held, by being open, until we end: while it is, nobody starts another.
    """
    for descriptor in (lock, ready):
        os.set_inheritable(descriptor, False)
    shim = Shim(folder, order)
    shim.start()
    answer(ready)
    shim.serve()
    if shim.exits:
        shim.exits.close()
    assert shim.status is not None
    code = os.waitstatus_to_exitcode(shim.status)
    return code if code >= 0 else 128 - code


def main(folder: str, lock: str, ready: str) -> None:
    """Be the shim in a session of our own: nobody waits for us."""
    if os.fork():
        os._exit(0)
    settle()
    keep(folder, ordered(), int(lock), int(ready))
