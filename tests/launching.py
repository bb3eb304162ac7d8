"""What the tests of launched programs share: a place to launch, and forked starters."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from miglet.runner.identity import ProcessIdentity
from miglet.runner.launcher import (
    RUNNER_UNIT,
    Launcher,
    LaunchSpec,
    StartShim,
    TransientUnit,
    start_in_session,
)
from miglet.runner.records import ExitStatus
from miglet.runner.run import Run
from miglet.supervisor.privileges import Account
from tests.agent_process import IN_UNITS
from tests.paths import PYTHON
from tests.support import eventually

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


def begin_of(kind: TransientUnit) -> StartShim:
    """How the launcher under test begins a run of this kind."""
    return kind.start if IN_UNITS else start_in_session


class Place:
    """A launcher and a runner folder that any user can reach."""

    def __init__(self, top: Path) -> None:
        self.directory = top / "runner"
        self.directory.mkdir()
        self.root = top / "runtime"
        self.launcher = Launcher(self.root, begin_of(RUNNER_UNIT))

    def spec(self, script: str, account: Account | None = None) -> LaunchSpec:
        """A program that is this shell script."""
        program = self.directory / "listener"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return LaunchSpec(
            "run-1",
            "runner-a",
            self.directory,
            (str(program), "run"),
            {"PATH": os.environ["PATH"], "PYTHON": PYTHON},
            account,
        )

    def start(self, script: str, account: Account | None = None) -> Run:
        """Launch this shell script."""
        return self.launcher.start(self.spec(script, account))

    def path(self, name: str) -> Path:
        """A file that the script writes."""
        return self.directory / name


@contextmanager
def launching() -> Iterator[Place]:
    """A place whose run, if one is left, is ended afterwards."""
    top = Path(tempfile.mkdtemp(prefix="miglet-launch-", dir="/tmp"))
    top.chmod(0o755)
    made = Place(top)
    try:
        yield made
    finally:
        if run := made.launcher.find():
            run.kill()
        shutil.rmtree(top)


def end_of(run: Run) -> ExitStatus:
    return eventually(run.ended, what="the end of the run")


def orphans_of(run: Run) -> list[ProcessIdentity]:
    """The run's processes but its Listener."""
    return [who for who in run.tree() if who != run.listener]


def gone(run: Run) -> bool:
    return not run.tree() and not run.shim.alive()


def starts(place: Place) -> str:
    """What the program has written to `started`, one line a start."""
    path = place.path("started")
    return path.read_text() if path.exists() else ""


def forked(function: Callable[[], object]) -> int:
    """Run `function` in a forked child, which then hangs; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            signal.pause()
        finally:
            os._exit(1)
    return pid


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
