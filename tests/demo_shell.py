"""``make demo-shell``: a running machine, and a shell with commands to work with it.

The shell is the user's own, with a folder of commands before its PATH; when it ends,
everything that was started for it ends.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.agent_process import Agent
from tests.paths import ROOT
from tests.reference_process import ReferenceController
from tests.runner_double.double import Double
from tests.terminal import Terminal

VM = "vm-1"
COMMANDS = (
    ("miglet-ctl status", "what the machine does; also watch, events, metrics, doctor"),
    ("miglet config", "each setting and where it came from; also miglet check"),
    ("job [SECONDS] [NAME]", "give the runner a job"),
    ("fail [SECONDS] [NAME]", "give it one that fails"),
    ("events", "what the controller has received; --follow waits for more"),
    ("order drain", "send a command; also order shutdown mode=immediate"),
    ("agent-log -f", "the log of MIGlet; miglet-ctl log-level debug makes it longer"),
    (
        "miglet-controller vms",
        "the reference controller; also events VM, command VM …",
    ),
    ("exit", "stop everything"),
)


def run(
    terminal: Terminal, controller: ReferenceController, agent: Agent, double: Double
) -> None:
    """Introduce the commands and run the shell, whose exit status means nothing."""
    folder = agent.folder / "commands"
    write_commands(folder, controller, agent, double)
    terminal.line()
    terminal.line(terminal.styled("The machine is idle. Your commands:", "bold"))
    for command, use in COMMANDS:
        terminal.line(f"  {terminal.styled(f'{command:<22}', 'cyan')}  {use}")
    terminal.line()
    terminal.line(f"The controller is {controller.endpoint}, the machine is {VM}.")
    terminal.line(f"Its token is in {controller.token_path}.")
    terminal.line()
    shell = os.environ.get("SHELL") or "/bin/sh"
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "MIGLET_SOCKET": str(agent.socket),
    }
    subprocess.run([shell], env=environment, check=False)
    terminal.line("The demonstration has ended; nothing is left running.")


def write_commands(
    folder: Path, controller: ReferenceController, agent: Agent, double: Double
) -> None:
    """The scripts that the shell finds before all others."""
    folder.mkdir()
    access = [
        "--endpoint",
        controller.endpoint,
        "--token-file",
        str(controller.token_path),
    ]
    reference = [sys.executable, "-m", "miglet.reference.cli"]
    push = [sys.executable, "-m", "tests.runner_double.push", str(double.root)]
    miglet = str(agent.commands / "miglet")
    write(folder / "miglet", [miglet, "--config", str(agent.config)])
    write(folder / "miglet-ctl", [str(agent.commands / "miglet-ctl")])
    write(folder / "miglet-controller", reference, access)
    write(folder / "agent-log", ["tail", "-n", "20"], [str(agent.log_path)])
    write(folder / "events", [*reference, "events", *access, VM])
    write(folder / "order", [*reference, "command", *access, "--wait", VM])
    write(folder / "job", [*push, "Succeeded"])
    write(folder / "fail", [*push, "Failed"])


def write(path: Path, words: list[str], last: Sequence[str] = ()) -> None:
    """A script that runs `words` with its own arguments and then `last` after them."""
    place = f"PYTHONPATH={shlex.quote(str(ROOT))}"
    command = f'{shlex.join(words)} "$@" {shlex.join(last)}'.rstrip()
    path.write_text(f"#!/bin/sh\n{place} exec {command}\n")
    path.chmod(0o755)
