"""Starts programs that outlive us: the runner, and its configuration.

One launcher has one folder and at most one run in it. The shim holds the folder's lock
for as long as anything of the run lives, so a second program is never started beside
the first, not even when its launcher died before it knew what it had started.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miglet.errors import RunnerError
from miglet.runner import keep
from miglet.runner.identity import boot_id
from miglet.runner.installation import FolderUnusable, executable_problems
from miglet.runner.procfs import BOOT_ID
from miglet.runner.records import discard, tail
from miglet.runner.run import Run, RunnerPresent, pause
from miglet.supervisor.linux import finish
from miglet.supervisor.privileges import Account

#: How long a shim may take to record what it started; it takes about 50 ms.
START_SECONDS = 5.0

#: What `Launcher.start` takes at most: systemd may be as slow, twice.
LAUNCH_SECONDS = 3 * START_SECONDS


#: A job that takes all the memory must not take its own Listener or Worker: a machine
#: that is lost to GitHub loses the job. The official runner gives its steps 500, so
#: the kernel takes a step first; the agent itself has -900 (etc/miglet.service).
RUNNER_OOM_SCORE_ADJ = -300


class LaunchFailed(RunnerError):
    """The shim did not come up, or did not say in time what it started."""

    transient = True
    category = "infrastructure"
    hint = "look for a full disk or runtime folder, or a machine out of processes"


@dataclass(frozen=True)
class LaunchSpec:
    """A program to start, in all detail: nothing is inherited that is not in here."""

    run_id: str
    #: What people call it: the runner's name.
    name: str
    #: The working directory.
    directory: Path
    #: The program's absolute path, and its arguments; everybody may read them.
    argv: tuple[str, ...]
    #: The whole environment. It passes through a pipe and is written nowhere.
    environment: Mapping[str, str] = field(repr=False)
    #: Whom to run it as; None, and whenever we are not root: our own user.
    account: Account | None = None
    job_directory: Path | None = None
    #: Where the runner writes its logs; None: it has none.
    diag_directory: Path | None = None
    #: Runner logs that are there already, with their sizes: not this program's.
    earlier_logs: Mapping[str, int] = field(default_factory=dict)
    #: What the official runner's jobs are used to: others may read what they make.
    umask: int = 0o022
    #: How likely the kernel is to kill it when memory is short, from -1000 to 1000
    #: (proc(5)); None: no less than most. Needs CAP_SYS_RESOURCE below 0.
    oom_score_adj: int | None = None

    def order(self) -> dict[str, Any]:
        """The JSON form in which the shim takes it."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "directory": str(self.directory),
            "argv": list(self.argv),
            "environment": dict(self.environment),
            "account": taken_on(self.account),
            "job_directory": str(self.job_directory) if self.job_directory else None,
            "diag_directory": str(self.diag_directory) if self.diag_directory else None,
            "earlier_logs": dict(self.earlier_logs),
            "umask": self.umask,
            "oom_score_adj": self.oom_score_adj,
        }


#: A way to start a shim for a spec and a folder: it is given the folder's lock, and the
#: end of a pipe on which it answers. Raises LaunchFailed.
Begin = Callable[[LaunchSpec, Path, int, int], None]


def in_session(spec: LaunchSpec, folder: Path, lock: int, answer: int) -> None:
    """Start the shim in a session of its own, for machines without systemd.

    What we start detaches at once, and its child goes on.
    """
    shim = [sys.executable, "-ISE", os.path.abspath(keep.__file__), "shim"]
    words = json.dumps(spec.order()).encode()
    with open(folder / "shim.err", "wb") as complaints:
        try:
            process = subprocess.Popen(
                [*shim, str(folder), str(lock), str(answer)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                cwd="/",
                env={},
                pass_fds=(lock, answer),
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchFailed(f"cannot start the shim: {error}") from error
    with suppress(subprocess.TimeoutExpired):
        finish(process, words, START_SECONDS)


class Launcher:
    """Launches behind a shim; `begin` is what makes one kind differ from another."""

    def __init__(
        self, root: Path, begin: Begin = in_session, boot_id_path: str = BOOT_ID
    ) -> None:
        self.root = root
        self.folder = root / "current"
        self.begin = begin
        self.boot_id_path = boot_id_path

    def start(self, spec: LaunchSpec) -> Run:
        """Start `spec`; returns when that is recorded, after LAUNCH_SECONDS at most.

        Raises RunnerPresent, FolderUnusable or LaunchFailed.
        """
        problems = executable_problems(spec.directory, Path(spec.argv[0]), spec.account)
        if problems:
            raise FolderUnusable(problems)
        with self.lock() as lock:
            self.clear()
            return self.spawn(spec, lock)

    def find(self) -> Run | None:
        """The run of this boot that lives, or that ended and was not forgotten.

        Waits for a shim that has just been started, 5 s at most; raises LaunchFailed
        when it does not say in that time what it started.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.folder.exists() and not self.recorded():
            with suppress(RunnerPresent), self.lock():
                self.clear()
            if time.monotonic() > deadline:
                raise LaunchFailed(f"{self.folder} is taken, and no one says by what")
            pause(0.01)
        return self.recorded()

    def recorded(self) -> Run | None:
        """The run that the folder tells of, if it is one of this boot."""
        run = Run.found_in(self.folder)
        this_boot = boot_id(self.boot_id_path)
        return run if run and run.shim.boot_id == this_boot else None

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the folder against all others; raises RunnerPresent if one has it."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(self.root / "lock", flags, 0o600)
        try:
            self.take(lock)
            yield lock
        finally:
            os.close(lock)

    def take(self, lock: int) -> None:
        """Lock the opened file, or tell that somebody else's run holds it."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunnerPresent(f"a run in {self.root} has not ended") from None

    def clear(self) -> None:
        """Make way for a run: remove what no one can still ask about."""
        if run := self.recorded():
            raise RunnerPresent(f"nobody has asked yet how {run.name} ended")
        discard(self.folder)

    def spawn(self, spec: LaunchSpec, lock: int) -> Run:
        """Have a shim start `spec`, and wait until it has recorded it."""
        self.folder.mkdir(mode=0o700)
        ready, answer = os.pipe2(os.O_CLOEXEC)
        with open(ready, "rb", 0) as hearing:
            with open(answer, "wb", 0):
                self.begin(spec, self.folder, lock, answer)
            answered = bool(select.select([hearing], [], [], START_SECONDS)[0])
            said = hearing.read(64) if answered else b""
        run = self.recorded()
        if run is None or not said:
            raise LaunchFailed(self.complaint(answered))
        return run

    def complaint(self, answered: bool) -> str:
        """Why there is no run: the shim's own last words where it had any."""
        words = tail(self.folder / "shim.err", 4096).decode(errors="replace")
        last = words.strip().rpartition("\n")[2]
        if answered:
            return f"the shim of {self.root} failed: {last or 'it said nothing'}"
        return f"the shim of {self.root} said nothing for {START_SECONDS:g} s"


def taken_on(account: Account | None) -> dict[str, Any] | None:
    """The user to become, with its groups; None when we stay who we are."""
    if account is None or os.geteuid() != 0:
        return None
    groups = os.getgrouplist(account.name, account.gid)
    return {
        "name": account.name,
        "uid": account.uid,
        "gid": account.gid,
        "groups": groups,
    }
