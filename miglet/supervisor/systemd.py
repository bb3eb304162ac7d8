"""What MIGlet tells systemd of itself (sd_notify(3)), and what it has systemd do.

Telling never fails: a machine without systemd is as good as one with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from miglet.errors import MigletError
from miglet.formats import one_line
from miglet.supervisor.linux import finish

#: There if and only if systemd is the machine's service manager (sd_booted(3)).
BOOTED = Path("/run/systemd/system")


class CommandFailed(MigletError):
    """systemd did not do what it was asked to; the text is the reason given."""

    category = "infrastructure"


def order(command: Sequence[str], seconds: float, given: bytes = b"") -> None:
    """Run `systemctl` and the like to their end; raises CommandFailed."""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=null, stderr=pipe)
        said = finish(process, given, seconds).decode(errors="replace").strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{command[0]} cannot be asked: {error}") from error
    if process.returncode:
        raise CommandFailed(said or f"{command[0]} ended with {process.returncode}")


class Notifier:
    """Speaks to the socket in ``NOTIFY_SOCKET``, which no child may inherit."""

    def __init__(self, environ: os._Environ[str] | dict[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        environ.pop("WATCHDOG_PID", None)
        environ.pop("WATCHDOG_USEC", None)

    def ready(self, status: str) -> None:
        """The service runs; its checks may still be under way."""
        self._say(READY="1", STATUS=status)

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._say(STATUS=status)

    def alive(self) -> None:
        """The loop ran and the critical workers live."""
        self._say(WATCHDOG="1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so many seconds more to start or to stop, from now on."""
        self._say(EXTEND_TIMEOUT_USEC=str(round(seconds * 1e6)))

    def stopping(self) -> None:
        """The end has begun."""
        self._say(STOPPING="1")

    def _say(self, **assignments: str) -> None:
        """Send the assignments, one a line; whatever a value holds, it is one line."""
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as end:
            end.connect(self._address)
            lines = [f"{name}={one_line(value)}" for name, value in assignments.items()]
            end.send("\n".join(lines).encode())


def systemd_usable() -> bool:
    """Whether we may ask systemd for units: it runs, and we are root."""
    return os.geteuid() == 0 and BOOTED.is_dir()
