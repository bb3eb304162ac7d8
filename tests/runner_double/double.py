"""The test's side of the double: lay a runner out, talk to it, read what happened."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from tests.paths import PYTHON, ROOT, TESTS
from tests.runner_double import mailbox, registry, truth
from tests.runner_double import plan as plans
from tests.runner_double.update import write_version

#: What a missing library makes config.sh say and do.
PREFLIGHTS = {
    "no_icu": "Libicu's dependencies is missing for Dotnet Core 6.0",
    "no_libraries": "Dependencies is missing for Dotnet Core 6.0",
}
HINT = (
    "Execute sudo ./bin/installdependencies.sh to install any missing Dotnet Core 6.0"
    " dependencies."
)
BINARY = """#!{python} -ISE
import signal
import sys

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, {checkout!r})
from tests.runner_double.{module} import main

sys.exit(main(__file__, sys.argv[1:]))
"""
#: The libraries that config.sh has `ldd` look at.
LIBRARIES = (
    "libcoreclr.so",
    "libSystem.Security.Cryptography.Native.OpenSsl.so",
    "libSystem.IO.Compression.Native.so",
)
KILL_SECONDS = 5.0
#: States of /proc/PID/stat in which a process is over.
ENDED = "ZX"


def install(
    root: Path, plan: dict[str, Any] | None = None, python: str = PYTHON
) -> Double:
    """Lay out a runner below `root`, to be played as `plan` says.

    `python` runs it; the user who plays the runner must be able to execute it.
    Raises ValueError for a key that no plan has.
    """
    root.mkdir(parents=True, exist_ok=True)
    double = Double(root.resolve())
    create_control_folder(double.root)
    double.replan(plan or {})
    lay_out_scripts(double.root)
    version = plans.load(double.root).entries["version"]
    lay_out_binaries(double.root / "bin", version, python)
    return double


def create_control_folder(root: Path) -> None:
    """`double/`, open to every user: it is no part of what is played."""
    control = root / "double"
    for folder in ("", "wakeups", "mail", "released", "finished"):
        (control / folder).mkdir(exist_ok=True)
        (control / folder).chmod(0o777)
    for name in ("truth.jsonl", "registry.lock"):
        (control / name).touch()
        (control / name).chmod(0o666)
    registry.create(root)


def lay_out_scripts(root: Path) -> None:
    names = ("config.sh", "run.sh", "run-helper.sh.template", "env.sh", "safe_sleep.sh")
    for name in names:
        shutil.copyfile(TESTS / "runner_double" / "shell" / name, root / name)
        (root / name).chmod(0o755)


def lay_out_binaries(folder: Path, version: str, python: str) -> None:
    folder.mkdir(exist_ok=True)
    modules = {"Runner.Listener": "program", "Runner.Worker": "worker"}
    for name, module in modules.items():
        text = BINARY.format(python=python, checkout=str(ROOT), module=module)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    write_version(folder, version)
    for name in LIBRARIES:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(c_library())


def c_library() -> str:
    """A shared object that `ldd` finds nothing wrong with."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if "/libc.so" in path or "/libc-" in path or "/ld-musl" in path:
            return path
    return PYTHON


def jitconfig(name: str, **settings: Any) -> str:
    """A `--jitconfig` for runner `name`: three files in base64, without a mark."""
    agent = {"AgentId": "21", "AgentName": name, "Ephemeral": "True", **settings}
    files = {
        ".runner": agent,
        ".credentials": {"scheme": "OAuth", "data": {"clientId": "double"}},
        ".credentials_rsaparams": {"modulus": "AA=="},
    }
    encoded = {
        key: base64.b64encode(json.dumps(content).encode()).decode()
        for key, content in files.items()
    }
    return base64.b64encode(json.dumps(encoded).encode()).decode()


class Double:
    """A laid-out runner, and the strings by which the test moves it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def replan(self, plan: dict[str, Any]) -> None:
        """Another plan, for the processes that start from now on."""
        chosen = plans.complete(plan)
        chosen.save(self.root)
        message = PREFLIGHTS.get(chosen.entries["preflight"])
        check = f'echo "{message}"\necho "{HINT}"\nexit 1\n' if message else ""
        (self.root / "double" / "preflight.sh").write_text(check)
        (self.root / "double" / "times.sh").write_text(
            f"SECOND={chosen.scale:.6f}\n"
            f"RETRY_SECONDS={chosen.scaled(5):.6f}\n"
            f"UPDATE_STEP_SECONDS={max(0.05, chosen.scale):.6f}\n"
        )

    def truth(self, what: str | None = None) -> list[dict[str, Any]]:
        """What happened so far, oldest first; only records named `what` if given."""
        return truth.records(self.root, what)

    def calls(self) -> list[str]:
        """The requests that the service has had, in order, but for the polls."""
        return [call["name"] for call in self.truth("call")]

    def registry(self) -> dict[str, Any]:
        """The service's register: `runners`, `deleted`, `history`, `turns`."""
        return registry.read(self.root)

    def push(self, kind: str, **message: Any) -> None:
        """Give the Listener a message of any kind in `messages.KINDS`."""
        mailbox.put(self.root, "mail", kind, message)

    def push_job(self, job: dict[str, Any] | None = None) -> None:
        """Give an idle Listener a job; a busy one takes it afterwards."""
        mailbox.put(self.root, "mail", "job", job or {})

    def release_job(self) -> None:
        """Let one held Listener have its job; kept until one asks."""
        mailbox.put(self.root, "released", "permit", {})

    def finish_step(self, code: int | None = None) -> None:
        """Let one held step end, with `code` if it is given; kept until one asks."""
        mailbox.put(self.root, "finished", "permit", {"code": code})

    def cancel_job(self, timeout: float = 300.0) -> None:
        """The server cancels the running job, granting `timeout` real seconds."""
        mailbox.put(self.root, "mail", "cancel", {"timeout": timeout})

    def delete_registration(self, name: str) -> int:
        """DELETE of the runner by the controller: 204, 404, or 422 if it is busy."""
        if name not in self.registry()["runners"]:
            return 404
        if len(self.truth("running_job")) > len(self.truth("reported")):
            return 422
        registry.drop(self.root, name, "deleted")
        self.push("deleted")
        return 204

    def log(self, kind: str) -> str:
        """All of `_diag/KIND_*.log`, or of the uploaded logs if kind is `job`."""
        folder = self.root / ("double" if kind == "job" else "_diag")
        separator = "-" if kind == "job" else "_"
        paths = sorted(folder.glob(f"{kind}{separator}*.log"))
        return "".join(path.read_text(errors="replace") for path in paths)

    def give_to(self, uid: int, gid: int) -> None:
        """Make another user the owner of everything below the root."""
        os.chown(self.root, uid, gid)
        for path in self.root.rglob("*"):
            os.chown(path, uid, gid, follow_symlinks=False)

    def pids(self) -> list[int]:
        """Living processes whose folder or command line lies below the root."""
        numbers = (entry.name for entry in Path("/proc").iterdir())
        candidates = [int(number) for number in numbers if number.isdigit()]
        return [pid for pid in candidates if pid != os.getpid() and self._owns(pid)]

    def kill(self) -> None:
        """End every process of this root, whatever has become of its parents."""
        deadline = time.monotonic() + KILL_SECONDS
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                kill_if_alive(pid)

    def _owns(self, pid: int) -> bool:
        folder, prefix = Path(f"/proc/{pid}"), f"{self.root}/"
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            cwd = os.readlink(folder / "cwd")
        except OSError:  # gone, or another user's
            return False
        named = any(word.startswith(prefix) for word in words.split("\0"))
        return state not in ENDED and (named or f"{cwd}/".startswith(prefix))


def kill_if_alive(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
