"""Starts the shim as a transient systemd service, beside MIGlet's unit and not in it.

The unit has nothing of our sandbox, survives any end of MIGlet, and is one control
group. Nothing secret is in its properties: whoever can speak to systemd may read them.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from miglet.runner import keep
from miglet.runner.launcher import (
    RUNNER_OOM_SCORE_ADJ,
    START_SECONDS,
    LaunchFailed,
    LaunchSpec,
)
from miglet.supervisor import systemd

PROPERTIES = (
    "Type=exec",
    # The shim ends them all; once it is gone the kernel does, at once.
    "KillMode=mixed",
    "TimeoutStopSec=30",
    # A step that is killed for want of memory fails; its job goes on.
    "OOMPolicy=continue",
    "CPUAccounting=yes",
    "MemoryAccounting=yes",
    "IOAccounting=yes",
    "StandardOutput=null",
)


@dataclass(frozen=True)
class Transient:
    """One kind of transient service: what it is called, and what it depends on."""

    prefix: str
    options: tuple[str, ...]

    def begin(self, spec: LaunchSpec, folder: Path, lock: int, answer: int) -> None:
        """Have systemd start the shim, and hand it the order; raises LaunchFailed."""
        token = secrets.token_hex(6)
        unit, door = f"{self.prefix}-{token}.service", f"order-{token}"
        with listening(folder, door) as listener:
            run(self.command(unit, spec.name, folder, door))
            hand_over_to_unit(listener, spec, (lock, answer))

    def command(self, unit: str, name: str, folder: Path, door: str) -> tuple[str, ...]:
        """What has systemd start the shim, which then connects to `door`."""
        properties = (
            *PROPERTIES,
            f"StandardError=append:{folder}/shim.err",
            f"ExecStopPost=-{quoted(program('recorder', str(folder)))}",
        )
        return (
            *("systemd-run", "--quiet", "--collect", f"--unit={unit}"),
            f"--description=MIGlet: {name}",
            *self.options,
            *(f"--property={each}" for each in properties),
            "--",
            *map(literal, program("inside", str(folder), unit, door)),
        )


#: The slice gives jobs a place of their own, for limits if an administrator wants any.
#: A machine that shuts down stops MIGlet first: it lets the job finish, and reports it.
#: The shim must not die before its runner, or systemd ends the job.
RUNNER = Transient(
    "miglet-runner",
    (
        "--slice=miglet-jobs.slice",
        "--property=Before=miglet.service",
        f"--property=OOMScoreAdjust={RUNNER_OOM_SCORE_ADJ}",
    ),
)

#: config.sh removes a registration while the machine shuts down already, so that it may
#: not depend on anything that goes then, nor wait for the end of MIGlet's own unit.
CONFIGURATION = Transient(
    "miglet-configuration",
    ("--slice=system.slice", "--property=DefaultDependencies=no"),
)


def run(command: tuple[str, ...]) -> None:
    """Have systemd start the unit; returns when the shim is being executed."""
    try:
        systemd.order(command, START_SECONDS)
    except systemd.Unheeded as error:
        raise LaunchFailed(str(error)) from error


@contextmanager
def listening(folder: Path, door: str) -> Iterator[socket.socket]:
    """A socket in `folder` to which one unit will connect."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    place = os.open(folder, flags)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # The folder's own path may be longer than an address (unix(7)).
            listener.bind(f"/proc/self/fd/{place}/{door}")
            listener.listen(1)
            listener.settimeout(START_SECONDS)
            yield listener
    finally:
        with suppress(FileNotFoundError):
            os.unlink(door, dir_fd=place)
        os.close(place)


def hand_over_to_unit(
    listener: socket.socket, spec: LaunchSpec, passed: tuple[int, int]
) -> None:
    """Give the shim its descriptors and its order; it tells by itself what fails."""
    with suppress(OSError), listener.accept()[0] as shim:
        shim.settimeout(START_SECONDS)
        socket.send_fds(shim, [b"o"], passed)
        shim.sendall(json.dumps(spec.order()).encode())


def program(module: str, *words: str) -> tuple[str, ...]:
    """The command that runs a module beside `keep` with these arguments."""
    return (sys.executable, "-ISE", os.path.abspath(keep.__file__), module, *words)


def literal(word: str) -> str:
    """`word` with nothing in it that systemd expands (systemd.service(5))."""
    return word.replace("$", "$$")


def quoted(words: tuple[str, ...]) -> str:
    """A command line that systemd splits into these words again."""
    escaped = (literal(w).replace("\\", r"\\").replace('"', r"\"") for w in words)
    return " ".join(f'"{word}"' for word in escaped)
