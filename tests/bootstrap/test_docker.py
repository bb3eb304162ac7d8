"""The check of Docker, against a socket that answers, starts late, hangs or errs."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.preflight_machine import look, settings_of
from tests.support import Stopwatch

pytestmark = pytest.mark.integration

PONG = (b"HTTP/1.0 200 OK\r\nApi-Version: 1.43\r\n\r\n", b"OK")


@contextlib.contextmanager
def docker_at(
    path: Path, answer: tuple[bytes, ...] = PONG, delay: float = 0.0
) -> Iterator[None]:
    """A Docker Engine as far as its ping, there after a while; answers in pieces."""
    stopped, listening = threading.Event(), threading.Event()

    def serve() -> None:
        stopped.wait(delay)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listening.set()
            listener.settimeout(0.02)
            while not stopped.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        reply(connection)

    def reply(connection: socket.socket) -> None:
        asked = connection.recv(1000).startswith(b"GET /_ping HTTP/1.1\r\n")
        for piece in answer if asked else ():
            connection.sendall(piece)
            stopped.wait(0.02)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if not delay:
            # Its file is there before it accepts connections.
            assert listening.wait(10)
        yield
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def deaf_docker_at(path: Path) -> Iterator[None]:
    """A socket that accepts, as systemd's does before Docker is up, and is silent."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


@pytest.fixture
def required(tmp_path):
    return settings_of(tmp_path, bootstrap__docker="required")


@pytest.fixture
def optional(tmp_path):
    return settings_of(tmp_path, bootstrap__docker="optional")


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_docker_that_answers_is_fine(required, path):
    with docker_at(path):
        row = look("docker", required)
    assert (row["status"], row["detail"]) == ("ok", f"answers at {path}")


def test_an_answer_in_small_pieces_is_an_answer(required, path):
    with docker_at(path, (b"HTTP/1.", b"0 20", b"0 OK\r\n\r\nOK")):
        row = look("docker", required)
    assert row["status"] == "ok"


def test_docker_that_is_not_wanted_is_not_looked_for(tmp_path, path):
    row = look("docker", settings_of(tmp_path))
    assert (row["status"], row["detail"]) == ("ok", "not asked for")


def test_docker_that_is_required_is_waited_for_while_it_starts(required, path):
    with docker_at(path, delay=0.6):
        row = look("docker", required)
    assert row["status"] == "ok"
    assert row["milliseconds"] >= 500


def test_docker_that_is_required_and_missing_fails(required, path):
    row = look("docker", required, seconds=0.3)
    assert (row["status"], row["category"]) == ("fail", "infrastructure")
    assert row["detail"] == f"{path}: No such file or directory"
    assert "bootstrap.docker" in row["hint"]


def test_docker_that_is_optional_and_missing_costs_nothing(
    optional, path, nothing_installed
):
    row = look("docker", optional)
    assert (row["status"], row["detail"]) == ("ok", f"not installed (no {path})")
    assert row["milliseconds"] < 1000


def test_docker_that_is_optional_and_still_starting_is_waited_for(
    optional, path, tmp_path, nothing_installed
):
    (tmp_path / "dockerd").write_text("")
    (tmp_path / "dockerd").chmod(0o755)
    with docker_at(path, delay=0.4):
        row = look("docker", optional)
    assert (row["status"], row["detail"]) == ("ok", f"answers at {path}")


def test_docker_that_is_optional_and_silent_is_a_warning_after_two_seconds(
    optional, path
):
    began = time.monotonic()
    watch = Stopwatch()
    with deaf_docker_at(path):
        row = look("docker", optional, seconds=60)
    assert row["status"] == "warn"
    assert row["detail"] == f"{path}: accepts connections, but does not answer"
    assert time.monotonic() - began > 1.9
    assert watch.seconds() < 10


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.0 500 Oops 200\r\n\r\n", "500 Oops 200"),
        (b"SSH-2.0-OpenSSH 200\r\n\r\n", "SSH-2.0-OpenSSH 200"),
        (b"\xff\x00 200 \r\n\r\n", "200"),
        (b"HTTP/1.0\r\n\r\n", "HTTP/1.0"),
        (b"", "closed connection"),
    ],
    ids=["error", "ssh", "binary", "short", "empty"],
)
def test_what_is_not_docker_is_quoted(optional, path, answer, expected):
    with docker_at(path, (answer,)):
        row = look("docker", optional, seconds=0.3)
    assert row["status"] == "warn"
    assert f"{path}: answered " in row["detail"]
    assert expected in row["detail"]


def test_an_answer_without_end_is_given_up(optional, path):
    with docker_at(path, (b"HTTP/1.0 500 " + b"x" * 100_000,)):
        row = look("docker", optional, seconds=0.5)
    assert row["status"] == "warn"
    assert len(row["detail"]) < 300


def test_another_way_to_docker_is_not_checked_nor_shown(required, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://user:secret@docker.example:2376")
    row = look("docker", required)
    assert row["status"] == "warn"
    assert row["detail"] == "DOCKER_HOST is a tcp address: not checked"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
def test_a_job_that_may_not_use_docker_is_warned_of(tmp_path, path):
    settings = settings_of(
        tmp_path, bootstrap__docker="required", runner__user="nobody"
    )
    with docker_at(path):
        path.chmod(0o660)
        row = look("docker", settings)
        path.chmod(0o666)
        assert look("docker", settings)["status"] == "ok"
    assert row["status"] == "warn"
    assert row["detail"] == f"answers at {path}, but not to user nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_docker_that_keeps_us_out_is_not_waited_for(required, path):
    with docker_at(path):
        path.chmod(0o600)
        for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
            folder.chmod(0o755)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setresuid(65534, 65534, 65534)
                row = look("docker", required, seconds=60)
                refused = row["status"] == "fail" and "may not use it" in row["detail"]
                status = 0 if refused and row["milliseconds"] < 10000 else 1
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
