"""A root shell on a machine that runs systemd: this one, or one that a box has booted.

Whatever a test wants to know of the machine is asked by commands that run in it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

Ended = subprocess.CompletedProcess[str]


class Console:
    """Where commands run; `prefix` is what makes them run elsewhere."""

    def __init__(self, *prefix: str) -> None:
        self._prefix = prefix

    def ran(self, *command: str, **options: Any) -> Ended:
        """A command's outcome."""
        words = (*self._prefix, *command)
        return subprocess.run(words, capture_output=True, text=True, **options)

    def done(self, *command: str) -> str:
        """What a command that must succeed printed."""
        completed = self.ran(*command)
        assert completed.returncode == 0, (command, completed.stdout, completed.stderr)
        return completed.stdout

    def as_runner(self, *command: str) -> Ended:
        """The outcome of a command that the runner's user runs."""
        return self.as_user("runner", *command)

    def as_user(self, user: str, *command: str) -> Ended:
        """The outcome of a command that a user of this machine runs."""
        become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        return self.ran("env", "--chdir=/", *become, "--", *command)

    def property_of(self, unit: str, name: str) -> str:
        """What systemd says of a unit."""
        command = ("systemctl", "show", "--value", "--property", name, unit)
        return self.done(*command).strip()

    def facts(self, pid: int) -> dict[str, str]:
        """/proc/PID/status."""
        lines = self.done("cat", f"/proc/{pid}/status").splitlines()
        pairs = (line.partition(":") for line in lines)
        return {key: value.strip() for key, _, value in pairs}

    def uid(self, user: str) -> int:
        return int(self.done("id", "--user", user))

    def write(self, path: str, text: str) -> None:
        """A file with this text, its folder too."""
        self.done("mkdir", "--parents", str(Path(path).parent))
        completed = self.ran("tee", path, input=text)
        assert completed.returncode == 0, completed.stderr
