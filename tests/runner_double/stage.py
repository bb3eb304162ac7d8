"""Where tests have the double play: a fixture, and the three ways to start something.

The environment is clean, as the agent's is; a test adds to it what it needs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runner_double.double import Double, install
from tests.support import eventually

SCALE = 0.002
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "RUNNER_ALLOW_RUNASROOT": "1",
    "ACTIONS_RUNNER_INPUT_TOKEN": "AAAA-TOKEN",
}
CONFIGURE = [
    *("--unattended", "--ephemeral", "--replace"),
    *("--url", "https://github.com/octo-org", "--name", "vm-1"),
]
LIMIT_SECONDS = 20.0

Ended = subprocess.CompletedProcess[str]


class Stage:
    """Doubles below one folder, and the processes started for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.doubles: list[Double] = []
        self.started: list[subprocess.Popen[str]] = []

    def lay_out(self, *listener: dict[str, Any], **plan: Any) -> Double:
        """A double with these Listener entries."""
        entries = list(listener) or [{}]
        wishes = {"scale": SCALE, "listener": entries, **plan}
        root = self._folder / f"runner{len(self.doubles)}"
        self.doubles.append(install(root, wishes))
        return self.doubles[-1]

    def ready(self, *listener: dict[str, Any], **plan: Any) -> Double:
        """The same, configured."""
        double = self.lay_out(*listener, **plan)
        assert config(double).returncode == 0
        return double

    def start(self, double: Double, program: str, **added: str) -> Any:
        """Start `bin/Runner.Listener run` or a script; its process, with pipes."""
        words = [program, "run"] if program.startswith("bin/") else [program]
        process = subprocess.Popen(
            [f"./{words[0]}", *words[1:]],
            cwd=double.root,
            env={**ENVIRONMENT, **added},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def listener(self, double: Double, **added: str) -> Any:
        return self.start(double, "bin/Runner.Listener", **added)

    def close(self) -> None:
        for double in self.doubles:
            double.kill()
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    opened = Stage(tmp_path)
    yield opened
    opened.close()


def config(double: Double, *arguments: str, **added: str) -> Ended:
    """Run `config.sh` to its end, with the usual options if none are given."""
    return run(double, "config.sh", *(arguments or CONFIGURE), **added)


def run(double: Double, script: str, *arguments: str, **added: str) -> Ended:
    """Run a program of the runner to its end."""
    return subprocess.run(
        [f"./{script}", *arguments],
        cwd=double.root,
        env={**ENVIRONMENT, **added},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT_SECONDS,
    )


def await_truth(double: Double, what: str, times: int = 1) -> dict[str, Any]:
    """The last record named `what`, once there are so many."""

    def last() -> dict[str, Any] | None:
        found = double.truth(what)
        return found[-1] if len(found) >= times else None

    found = eventually(last, LIMIT_SECONDS, what)
    assert found is not None
    return found


def configured_files(double: Double) -> set[str]:
    """Which of the files of a configuration exist."""
    names = (".runner", ".credentials", ".credentials_rsaparams")
    return {name for name in names if (double.root / name).exists()}


def unstamped(output: str) -> str:
    """The output without its time stamps."""
    lines = output.splitlines(keepends=True)
    return "".join(x[22:] if x[19:22] == "Z: " else x for x in lines)
