"""Starts programs that outlive MIGlet: the runner, and its configuration script.

A launched program is the child of a shim (`shim.py`), which owns its output and its
exit status. Where systemd runs, the shim is the main process of a transient service
beside MIGlet's unit: nothing of MIGlet's sandbox applies to it, it survives any end of
MIGlet, and it is one control group. Elsewhere it has a session of its own.

One launcher has one folder and at most one run in it. The shim holds the folder's lock
for as long as anything of the run lives, so a second program is never started beside
the first, not even when the launcher died before it knew what it had started.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Any

from miglet.config.settings import Settings
from miglet.errors import RunnerError
from miglet.messages.codec import Value, frozen_value
from miglet.runner import keep
from miglet.runner.identity import boot_id
from miglet.runner.installation import FolderUnusable, executable_problems
from miglet.runner.procfs import BOOT_ID
from miglet.runner.records import discard, tail
from miglet.runner.run import Run, RunnerPresent, pause
from miglet.runner.unit import unit_wanted
from miglet.supervisor import systemd
from miglet.supervisor.linux import finish
from miglet.supervisor.privileges import Account
from miglet.supervisor.systemd import systemd_usable

#: How long a shim may take to record what it started; it takes about 50 ms.
START_SECONDS = 5.0

#: What `Launcher.start` takes at most: systemd may be as slow, twice.
LAUNCH_SECONDS = 3 * START_SECONDS

#: A job that takes all the memory must not take its own Listener or Worker: GitHub
#: loses contact with the machine, and the job. The official runner gives its steps
#: 500, so the kernel takes a step first; MIGlet itself has -900 (etc/miglet.service).
RUNNER_OOM_SCORE_ADJ = -300

#: Properties of every transient unit. They contain no secret: any user can read them.
UNIT_PROPERTIES = (
    "Type=exec",
    # The shim kills the others; once the shim is gone systemd does, at once.
    "KillMode=mixed",
    "TimeoutStopSec=30",
    # A step that is killed for lack of memory fails; its job goes on.
    "OOMPolicy=continue",
    "CPUAccounting=yes",
    "MemoryAccounting=yes",
    "IOAccounting=yes",
    "StandardOutput=null",
)


class LaunchFailed(RunnerError):
    """The shim did not start, or did not report in time what it started."""

    transient = True
    category = "infrastructure"
    hint = "look for a full disk or runtime folder, or a machine out of processes"


@frozen_value
class LaunchSpec(Value):
    """A program to start, in all detail: it inherits nothing that is not in here."""

    run_id: str
    #: For people: the runner's name.
    name: str
    #: The working directory.
    directory: Path
    #: The program's absolute path, and its arguments; any user can read them.
    argv: tuple[str, ...]
    #: The whole environment. It passes through a pipe and is written nowhere.
    environment: Mapping[str, str] = field(repr=False)
    #: The user to run it as; None, and whenever we are not root: our own user.
    account: Account | None = None
    job_directory: Path | None = None
    #: Where the runner writes its logs; None: it has none.
    diag_directory: Path | None = None
    #: Runner logs that existed before, with their sizes: not this program's.
    earlier_logs: Mapping[str, int] = field(default_factory=dict)
    #: The official runner's default: other users may read what jobs create.
    umask: int = 0o022
    #: How likely the kernel is to kill it when memory is short, from -1000 to 1000
    #: (proc(5)); None: never less than 0. Lowering it needs CAP_SYS_RESOURCE.
    oom_score_adj: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The form in which the shim reads it."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "directory": str(self.directory),
            "argv": list(self.argv),
            "environment": dict(self.environment),
            "account": account_to_become(self.account),
            "job_directory": str(self.job_directory) if self.job_directory else None,
            "diag_directory": str(self.diag_directory) if self.diag_directory else None,
            "earlier_logs": dict(self.earlier_logs),
            "umask": self.umask,
            "oom_score_adj": self.oom_score_adj,
        }


#: Starts a shim for a spec in a folder; the shim gets the folder's lock, and the end of
#: a pipe on which it reports. Raises LaunchFailed.
StartShim = Callable[[LaunchSpec, Path, int, int], None]


def start_in_session(spec: LaunchSpec, folder: Path, lock: int, report: int) -> None:
    """Start the shim in a session of its own, for machines without systemd.

    The process that we start forks the shim and ends at once.
    """
    command = shim_command("shim", str(folder), str(lock), str(report))
    with open(folder / "shim.err", "wb") as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env={},
                pass_fds=(lock, report),
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchFailed(f"cannot start the shim: {error}") from error
    with suppress(subprocess.TimeoutExpired):
        finish(process, json.dumps(spec.as_json()).encode(), START_SECONDS)


@frozen_value
class TransientUnit(Value):
    """One kind of transient service: the prefix of its name, and its dependencies."""

    prefix: str
    options: tuple[str, ...]

    def start(self, spec: LaunchSpec, folder: Path, lock: int, report: int) -> None:
        """Have systemd start the shim, and send it the spec; raises LaunchFailed."""
        token = secrets.token_hex(6)
        unit, address = f"{self.prefix}-{token}.service", f"order-{token}"
        with listening(folder, address) as listener:
            start_unit(self.command(unit, spec.name, folder, address))
            send_spec(listener, spec, (lock, report))

    def command(
        self, unit: str, name: str, folder: Path, address: str
    ) -> tuple[str, ...]:
        """The command that starts the shim, which then connects to `address`."""
        properties = (
            *UNIT_PROPERTIES,
            f"StandardError=append:{folder}/shim.err",
            f"ExecStopPost=-{quoted(shim_command('recorder', str(folder)))}",
        )
        return (
            *("systemd-run", "--quiet", "--collect", f"--unit={unit}"),
            f"--description=MIGlet: {name}",
            *self.options,
            *(f"--property={each}" for each in properties),
            "--",
            *map(literal, shim_command("inside", str(folder), unit, address)),
        )


#: The slice gives jobs a place of their own, for limits if an administrator wants any.
#: A machine that shuts down stops MIGlet first: it lets the job finish, and reports it.
#: The shim is protected like its runner: when it dies, systemd kills the job.
RUNNER_UNIT = TransientUnit(
    "miglet-runner",
    (
        "--slice=miglet-jobs.slice",
        "--property=Before=miglet.service",
        f"--property=OOMScoreAdjust={RUNNER_OOM_SCORE_ADJ}",
    ),
)

#: config.sh removes a registration while the machine is already shutting down, so it
#: depends on nothing that stops then, and does not wait for MIGlet's own unit.
CONFIGURATION_UNIT = TransientUnit(
    "miglet-configuration",
    ("--slice=system.slice", "--property=DefaultDependencies=no"),
)


class Launcher:
    """Launches behind a shim, which `start_shim` starts in one of two ways."""

    def __init__(
        self,
        root: Path,
        start_shim: StartShim = start_in_session,
        boot_id_path: str = BOOT_ID,
    ) -> None:
        self.root = root
        self.folder = root / "current"
        self.start_shim = start_shim
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
        when it does not record in that time what it started.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.folder.exists() and not self.recorded():
            with suppress(RunnerPresent), self.lock():
                self.clear()
            if time.monotonic() > deadline:
                raise LaunchFailed(
                    f"{self.folder} is locked and has no record of a run"
                )
            pause(0.01)
        return self.recorded()

    def recorded(self) -> Run | None:
        """The run that the folder has a record of, if it is one of this boot."""
        run = Run.found_in(self.folder)
        this_boot = boot_id(self.boot_id_path)
        return run if run and run.shim.boot_id == this_boot else None

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the folder's lock; raises RunnerPresent if another process has it."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(self.root / "lock", flags, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunnerPresent(f"a run in {self.root} has not ended") from None
            yield lock
        finally:
            os.close(lock)

    def clear(self) -> None:
        """Remove what is left of a launch that failed, or of an earlier boot."""
        if run := self.recorded():
            raise RunnerPresent(f"the exit status of {run.name} has not been read")
        discard(self.folder)

    def spawn(self, spec: LaunchSpec, lock: int) -> Run:
        """Have a shim start `spec`, and wait until it has recorded it."""
        self.folder.mkdir(mode=0o700)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with open(reading, "rb", 0) as report:
            with open(writing, "wb", 0):
                self.start_shim(spec, self.folder, lock, writing)
            in_time = bool(select.select([report], [], [], START_SECONDS)[0])
            started = in_time and report.read(64)
        run = self.recorded()
        if run is None or not started:
            raise LaunchFailed(self.failure(in_time))
        return run

    def failure(self, in_time: bool) -> str:
        """Why there is no run: the last line of the shim's stderr, where it has one."""
        errors = tail(self.folder / "shim.err", 4096).decode(errors="replace")
        last_line = errors.strip().rpartition("\n")[2]
        if in_time:
            return f"the shim of {self.root} failed: {last_line or 'no error message'}"
        return f"the shim of {self.root} did not report within {START_SECONDS:g} s"


def runner_launcher(settings: Settings) -> Launcher:
    """What starts and finds the runner."""
    return launcher(settings, "runner", RUNNER_UNIT)


def configuration_launcher(settings: Settings) -> Launcher:
    """What starts and finds config.sh."""
    return launcher(settings, "configuration", CONFIGURATION_UNIT)


def launcher(settings: Settings, name: str, unit: TransientUnit) -> Launcher:
    """A launcher whose runs are in the folder `name`, as the settings want it.

    Only the start depends on the settings: a launcher finds what any other has started,
    so that a machine whose settings change between two starts keeps its runner.
    """
    root = Path(settings.paths.runtime) / name
    in_unit = unit_wanted(settings.runner.isolation, systemd_usable())
    return Launcher(root, unit.start if in_unit else start_in_session)


def account_to_become(account: Account | None) -> dict[str, Any] | None:
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


def start_unit(command: tuple[str, ...]) -> None:
    """Have systemd start the unit; returns when the shim is being executed."""
    try:
        systemd.order(command, START_SECONDS)
    except systemd.CommandFailed as error:
        raise LaunchFailed(str(error)) from error


@contextmanager
def listening(folder: Path, address: str) -> Iterator[socket.socket]:
    """A socket of this name in `folder`, to which one unit will connect."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # The folder's own path may be longer than an address (unix(7)).
            listener.bind(f"/proc/self/fd/{directory}/{address}")
            listener.listen(1)
            listener.settimeout(START_SECONDS)
            yield listener
    finally:
        with suppress(FileNotFoundError):
            os.unlink(address, dir_fd=directory)
        os.close(directory)


def send_spec(
    listener: socket.socket, spec: LaunchSpec, descriptors: tuple[int, int]
) -> None:
    """Send the shim its descriptors and the spec; it reports by itself what fails."""
    with suppress(OSError), listener.accept()[0] as shim:
        shim.settimeout(START_SECONDS)
        socket.send_fds(shim, [b"o"], descriptors)
        shim.sendall(json.dumps(spec.as_json()).encode())


def shim_command(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module beside `keep` with these arguments."""
    return (sys.executable, "-ISE", os.path.abspath(keep.__file__), module, *arguments)


def literal(word: str) -> str:
    """`word` with nothing in it that systemd expands (systemd.service(5))."""
    return word.replace("$", "$$")


def quoted(words: tuple[str, ...]) -> str:
    """A command line that systemd splits into these words again."""
    escaped = (literal(w).replace("\\", r"\\").replace('"', r"\"") for w in words)
    return " ".join(f'"{word}"' for word in escaped)
