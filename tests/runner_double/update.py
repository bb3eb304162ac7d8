"""A self-update: the lines, the new `bin`, and the script that puts it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.paths import TESTS
from tests.runner_double.host import Host

SHELL = TESTS / "runner_double" / "shell"
RETURN_CODE = 3
RETURN_CODE_RUN_ONCE = 4


def write_version(folder: Path, version: str) -> None:
    """`Runner.Listener.deps.json`, the one file that tells the version."""
    deps = {"libraries": {f"Runner.Listener/{version}": {"type": "project"}}}
    (folder / "Runner.Listener.deps.json").write_text(json.dumps(deps, indent=2))


def download(host: Host, version: str) -> None:
    fresh = host.root / f"bin.{version}"
    shutil.copytree(host.root / "bin", fresh, dirs_exist_ok=True, symlinks=True)
    write_version(fresh, version)


def start_script(host: Host, version: str, message: dict[str, Any]) -> None:
    """Run `_work/_update.sh`, which waits for this process to end."""
    script = host.root / "_work" / "_update.sh"
    script.parent.mkdir(exist_ok=True)
    shutil.copy(SHELL / "update.sh.template", script)
    flag = "yes" if message.get("flag", True) else "no"
    subprocess.Popen(
        ["bash", script, str(host.root), version, str(os.getpid()), flag],
        stdin=subprocess.DEVNULL,
        start_new_session=bool(message.get("detached", False)),
    )


def play_update(host: Host, message: dict[str, Any], runs_once: bool) -> int:
    """Say and do all of it; the exit code."""
    version = message.get("version", "2.337.0")
    terminal = host.terminal
    terminal.line("Runner update in progress, do not shutdown runner.")
    terminal.line(f"Downloading {version} runner")
    host.rest(5.0)
    download(host, version)
    terminal.line("Waiting for current job finish running.")
    terminal.line("Generate and execute update script.")
    start_script(host, version, message)
    terminal.line(
        "Runner will exit shortly for update, should be back online within 10 seconds."
    )
    terminal.line("Runner update process finished.")
    return RETURN_CODE_RUN_ONCE if runs_once else RETURN_CODE
