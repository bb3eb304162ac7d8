"""What every process of the double has: its root, plan, console and event loop.

The root is found from the script's own path, never from the environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.runner_double import plan as plans
from tests.runner_double import times, truth
from tests.runner_double.console import Terminal, Trace, count
from tests.runner_double.event_loop import EventLoop, open_wakeup

#: TaskResult by number; a Worker exits with 100 + number.
RESULTS = (
    "Succeeded",
    "SucceededWithIssues",
    "Failed",
    "Canceled",
    "Skipped",
    "Abandoned",
)
CREDENTIALS = (".credentials", ".credentials_migrated", ".credentials_rsaparams")
SETTINGS = (".runner", ".runner_migrated")


class Exit(Exception):
    """Ends the process with `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Host:
    """The surroundings of one process, `kind` being `Runner` or `Worker`."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root = root
        self.kind = kind
        self.plan = plans.load(root)
        self.trace = Trace(root, kind, self.plan.entries["log_page_bytes"])
        self.terminal = Terminal(self.trace)
        self.loop = EventLoop()
        self.agent_id = 0
        #: Whether a signal has ended what this process was doing.
        self.cancelled = False

    def record(self, what: str, **details: Any) -> None:
        truth.record(self.root, what, **details)

    def call(self, name: str, **details: Any) -> None:
        """Record a request to the service."""
        self.record("call", name=name, **details)

    def count(self, counter: str) -> None:
        count(self.kind, counter)

    def open_wakeup(self) -> None:
        open_wakeup(self.loop, self.root)

    def rest(self, seconds: float) -> None:
        """Let a real duration of so many `seconds` pass, to scale."""
        self.loop.run_for(self.plan.scaled(seconds))

    def rest_until_age(self, seconds: float) -> None:
        """Let this process become so old in real time, to scale."""
        self.loop.run_for(self.plan.scaled(seconds) - times.process_age())

    @property
    def version(self) -> str:
        """The version that the installed binary says it has."""
        deps = json.loads((self.root / "bin" / "Runner.Listener.deps.json").read_text())
        (library,) = deps["libraries"]
        return library.partition("/")[2]

    def settings(self) -> dict[str, Any]:
        """`.runner`, with its keys in lower case; empty if there is none."""
        path = self.root / ".runner"
        if not path.exists():
            return {}
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        return {key.lower(): value for key, value in found.items()}

    def forget_configuration(self) -> None:
        """Delete what config.sh wrote, as an ephemeral runner does after its job."""
        for names in (CREDENTIALS, SETTINGS):
            present = [name for name in names if (self.root / name).exists()]
            for name in present:
                (self.root / name).unlink()
            if present:
                self.terminal.success(f"Removed {names[0]}")


def root_of(script: str) -> Path:
    """The runner's folder, given the path of a script in its `bin`."""
    return Path(os.path.dirname(os.path.dirname(os.path.abspath(script))))


def truthy(value: object) -> bool:
    return str(value).lower() in ("1", "true")
