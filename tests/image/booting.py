"""Machines of a layer that `tests/image/run` has made, booted and switched off.

They run beside the tests, which are in their cloud: same loopback, another of
everything else.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.paths import BOX
from tests.support import eventually
from tests.systemd.console import Console

#: Where `tests/image/run` has put its layers, and the machine that all is made of.
LAYERS = Path("/srv/layers")
BOTTOM = "/srv/machine"

#: What makes the difference between here and there.
ENTER = ("--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd")

#: What systemd says of itself when the boot is over, well or not.
BOOTED = ("running", "degraded")


class Box:
    """One booted machine, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.init = eventually(self._found, what="the machine's systemd")
        self.console = Console("nsenter", f"--target={self.init}", *ENTER, "--")
        try:
            eventually(lambda: self._state() in BOOTED, 30, "the boot's end")
        except AssertionError as error:
            left = self.console.ran("systemctl", "list-jobs", "--no-pager").stdout
            raise AssertionError(f"{error}\n{self._state()}\n{left}") from None

    def _found(self) -> int:
        assert self.process.poll() is None, self.process.communicate()
        with suppress(psutil.NoSuchProcess):
            for each in psutil.Process(self.process.pid).children(recursive=True):
                if each.name() == "systemd":
                    return each.pid
        return 0

    def _state(self) -> str:
        assert self.process.poll() is None, self.process.communicate()
        return self.console.ran("systemctl", "is-system-running").stdout.strip()

    def path(self, inside: str) -> Path:
        """A file of the machine as it is seen from here."""
        return Path(f"/proc/{self.init}/root{inside}")

    def switched_off(self, seconds: float) -> None:
        """Wait until the machine has switched itself off, and in order."""
        said = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, said

    def pulled(self) -> None:
        """Take its mains plug out."""
        if self.process.poll() is None:
            psutil.Process(self.init).kill()
            self.process.communicate(timeout=20)


@contextmanager
def booted(*layers: str) -> Iterator[Box]:
    """A machine made of these layers, the uppermost first."""
    lower = ":".join([*(str(LAYERS / each) for each in layers), BOTTOM])
    environ = {"BOX_LOWER": lower, "BOX_NETWORK": "shared", "BOX_SECONDS": "240"}
    process = subprocess.Popen(
        [BOX],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    box = None
    try:
        box = Box(process)
        yield box
    finally:
        if box:
            box.pulled()
        elif process.poll() is None:
            process.kill()
