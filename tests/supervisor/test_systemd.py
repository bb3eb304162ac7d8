"""What systemd receives: one assignment a line, whoever wrote the text."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from miglet.supervisor.systemd import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(5)
        yield end


def notifier(manager: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1"})


@pytest.mark.parametrize(
    "name",
    [
        "build\nWATCHDOG=trigger\nX=",
        "build\nMAINPID=1447\nX=",
        "build\r\nREADY=1",
        "build\u2028STOPPING=1",
        "build\x00MAINPID=1",
        "build\ud800",
    ],
)
def test_the_name_of_a_job_is_no_message_to_systemd(manager, name):
    notifier(manager).status(f"job_running: octo/widget {name}, 3 min")
    message = manager.recv(4096).decode()
    assert message.startswith("STATUS=job_running: octo/widget build")
    assert len(message.splitlines()) == 1
    assert message.isprintable()


def test_ready_is_said_with_the_status_below_it(manager):
    notifier(manager).ready("idle")
    assert manager.recv(4096) == b"READY=1\nSTATUS=idle"


def test_children_do_not_inherit_what_is_meant_for_the_parent(manager):
    environ = {
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": "1",
        "PATH": "/usr/bin",
    }
    Notifier(environ).alive()
    assert environ == {"PATH": "/usr/bin"}
    assert manager.recv(4096) == b"WATCHDOG=1"


def test_a_machine_without_systemd_is_sent_nothing():
    Notifier({}).ready("idle")
