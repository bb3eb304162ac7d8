"""The real agent for tests: configured, started, asked, killed; nothing is faked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from miglet.ctl.client import Connection, Failed
from tests.runner_double.truth import whole_lines
from tests.support import eventually

#: Where the commands are: beside this interpreter, or where a packaging test says.
BIN = Path(os.environ.get("BIN_UNDER_TEST", Path(sys.executable).parent))

#: Whether runners are to be transient units: in a machine of `tests/systemd/box`.
IN_UNITS = "TEST_IN_UNITS" in os.environ

#: What a failed assertion shows of a log: so many lines, so many letters of each.
SHOWN_LINES, SHOWN_LETTERS = 40, 200

#: Settings that make time pass quickly; a test changes what it is about.
QUICK: dict[str, Any] = {
    "pool_id": "pool-1",
    "vm_id": "vm-1",
    "org_id": "org-1",
    "controller": {
        "timeout": "5s",
        "command_wait": "2s",
        "command_interval": "200ms",
        "retry": {"initial_backoff": "100ms", "max_backoff": "1s"},
    },
    "github": {"org": "octo", "registration_timeout": "10s"},
    "runner": {
        "user": None,
        "isolation": "systemd" if IN_UNITS else "process",
        # The runner is the user that MIGlet is, and cannot be kept from metadata.
        "block_metadata": False,
        "drain_settle": "300ms",
        "ghost_timeout": "2s",
        "ready_timeout": "10s",
    },
    "heartbeat": {"interval": "500ms", "timeout": "5s"},
    "shutdown": {
        "grace_period": "3s",
        "force_after": "20s",
        "delivery_timeout": "4s",
        "last_resort": "none",
    },
    "metrics": {"collection_interval": "500ms"},
    "bootstrap": {"min_free_disk": "1MB", "docker": "off", "network": False},
    "logging": {"level": "debug"},
}


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`base` with `more` laid over it, section by section."""
    laid = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(laid.get(key), dict)
        laid[key] = merged(laid[key], value) if both else value
    return laid


@dataclass
class Agent:
    """One machine's MIGlet: its folders stay when the process is killed."""

    folder: Path
    config: Path
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    #: Where its commands are.
    commands: Path = BIN

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "control.sock"

    @property
    def folders(self) -> dict[str, str]:
        """What the service manager would say of its folders."""
        return {
            "STATE_DIRECTORY": str(self.folder / "state"),
            "RUNTIME_DIRECTORY": str(self.folder / "run"),
        }

    @property
    def log_path(self) -> Path:
        return self.folder / "agent.log"

    def start(self) -> None:
        """Start the process; it logs to `log_path`, which grows over restarts."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.commands / "miglet", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.folders, **self.environment},
            )

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL for the parent, and wait until all its workers are gone."""
        workers = self.workers()
        self.signal(signal.SIGKILL)
        assert self.process
        self.process.wait(10)
        gone, alive = psutil.wait_procs(workers.values(), timeout=5)
        assert not alive, f"workers outlived their parent: {alive}"

    def wait(self, seconds: float = 60.0) -> int:
        """The exit status."""
        assert self.process
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"did not end; its log:\n{self.end_of_log()}"
            ) from None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def workers(self) -> dict[str, psutil.Process]:
        """The living workers by name, from the status object."""
        try:
            workers = self.status()["workers"]
        except AssertionError:
            return {}
        living = {}
        for name, each in workers.items():
            with suppress(psutil.NoSuchProcess):  # it may have died meanwhile
                if each["pid"]:
                    living[name] = psutil.Process(each["pid"])
        return living

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`miglet-ctl` with these arguments."""
        return subprocess.run(
            [self.commands / "miglet-ctl", "--socket", str(self.socket), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def status(self) -> dict[str, Any]:
        """The status object; AssertionError when there is none.

        Asked as `miglet-ctl` asks, but without a process for each of many questions.
        """
        try:
            with Connection(str(self.socket)) as connection:
                return connection.call("status")
        except Failed as failed:
            raise AssertionError(str(failed)) from None

    def state(self) -> str:
        """The lifecycle's state, or "" when nobody answers."""
        try:
            return self.status()["state"]
        except AssertionError:
            return ""

    def until(self, state: str, seconds: float = 60.0) -> None:
        """Wait for a state."""
        eventually(
            lambda: self.state() == state,
            seconds,
            f"{state}; log: {self.end_of_log()}",
        )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def end_of_log(self) -> str:
        """The last lines of the log as a person reads them in a failed assertion."""
        shown = filter(None, map(readable, self.log().splitlines()))
        return "\n".join([*shown][-SHOWN_LINES:])

    def lines(self) -> list[dict[str, Any]]:
        """The log's JSON lines."""
        found = [line for line in whole_lines(self.log()) if line.startswith("{")]
        return [json.loads(line) for line in found]


def readable(line: str) -> str:
    """A line of the log as short text; nothing for a fact that changed nothing."""
    entry = {}
    with contextlib.suppress(ValueError):  # it may be half written
        entry = json.loads(line) if line.startswith("{") else {}
    if not entry:
        return line
    message = entry.pop("message")
    if message.startswith("nothing to do in "):
        return ""
    begin = f"{entry['timestamp'][11:23]} {entry['level']:<7} {entry['component']}"
    long = entry.get("exc_info", "")
    text = message if len(message) <= SHOWN_LETTERS else message[:SHOWN_LETTERS] + "…"
    return f"{begin}  {text}" + (f"\n{long}" if long else "")


def let_pass(path: Path) -> None:
    """Let others through the temporary folders above `path`.

    Where root runs the tests and there is a user `miglet`, the workers become it, and
    must still find their files.
    """
    top = Path(tempfile.gettempdir())
    for folder in path.parents:
        if top in folder.parents and not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(0o711)


def configured(
    folder: Path, endpoint: str, token_path: Path, root: Path, /, **settings: Any
) -> Agent:
    """An agent with folders of its own, not started yet."""
    folder.mkdir(exist_ok=True)
    for path in (folder, token_path):
        let_pass(path)
    places: dict[str, Any] = {
        "controller": {
            "endpoint": endpoint,
            "auth": {"type": "bearer", "token_path": str(token_path)},
        },
        "runner": {"directory": str(root)},
        "paths": {"state": str(folder / "state"), "runtime": str(folder / "run")},
    }
    config = folder / "miglet.yaml"
    config.write_text(yaml.safe_dump(merged(merged(QUICK, places), settings)))
    return Agent(folder, config)


@contextmanager
def ended(agent: Agent) -> Iterator[Agent]:
    """See to it that nothing of the agent is left."""
    try:
        yield agent
    finally:
        if agent.process and agent.alive():
            children = psutil.Process(agent.pid).children(recursive=True)
            agent.signal(signal.SIGKILL)
            agent.process.wait(10)
            psutil.wait_procs(children, timeout=5)
