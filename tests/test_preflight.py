"""The checks before the first job: each finding by a machine that has that fault."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from miglet import preflight
from miglet.config.files import layers_of
from miglet.config.loading import load
from miglet.config.settings import Settings
from miglet.preflight.registry import CHECKS, Check, Misconfiguration
from miglet.preflight.report import outcome, report, table
from tests.authority import NOW, Authority
from tests.runner_double import install
from tests.support import eventually


@pytest.fixture
def settings(tmp_path) -> Callable[..., Settings]:
    """Settings of a machine with nothing wrong, but for what a test changes."""
    install(tmp_path / "runner", {})
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    token.chmod(0o600)
    plain = {
        "pool_id": "p",
        "vm_id": "v",
        "org_id": "o",
        "controller.endpoint": "http://127.0.0.1:1",
        "controller.auth.token_path": token,
        "runner.directory": tmp_path / "runner",
        "runner.user": "",
        "bootstrap.network": "no",
        "bootstrap.docker": "off",
        "bootstrap.min_free_disk": "1MB",
        "paths.state": tmp_path / "state",
        "paths.runtime": tmp_path / "run",
    }

    def made(**changes: object) -> Settings:
        named = {key.replace("__", "."): value for key, value in changes.items()}
        words = [f"{key}={value}" for key, value in {**plain, **named}.items()]
        return load(layers_of({"MIGLET_CONFIG": str(empty)}, words)).settings

    return made


def look(name: str, settings: Settings, seconds: float = 5.0) -> dict:
    """What one check finds."""
    return outcome(name, CHECKS[name].look, settings, time.monotonic() + seconds)


def test_a_sound_machine_fails_nothing_and_costs_the_boot_little(settings):
    began = time.monotonic()
    rows = report(settings())
    assert time.monotonic() - began < 1.0
    assert {row["status"] for row in rows} <= {"ok", "warn"}
    assert [row["id"] for row in rows] == list(CHECKS)
    json.dumps(rows)


def test_every_check_says_what_it_is_for():
    for each in CHECKS.values():
        assert each.look.__doc__


def test_the_runner_and_its_version_are_seen(settings):
    assert "2.336.0" in look("runner_folder", settings())["detail"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda root: (root / "bin" / "Runner.Listener").unlink(), "Runner.Listener"),
        (lambda root: (root / "config.sh").unlink(), "config.sh"),
        (lambda root: (root / "config.sh").chmod(0o644), "executable"),
        (lambda root: root.rename(root.with_name("moved")), "does not exist"),
    ],
)
def test_a_runner_that_is_not_whole_is_a_misconfiguration(
    settings, tmp_path, damage, told
):
    wanted = settings()
    damage(tmp_path / "runner")
    row = look("runner_folder", wanted)
    assert (row["status"], row["category"]) == ("fail", "misconfig")
    assert told in row["detail"]
    assert row["hint"]


def test_a_user_that_does_not_exist_is_named(settings):
    row = look("runner_user", settings(runner__user="nobody-at-all"))
    assert (row["status"], row["category"]) == ("fail", "misconfig")
    assert "nobody-at-all" in row["detail"]
    assert "runner.user" in row["hint"]


def test_an_image_with_a_registration_is_warned_of(settings, tmp_path):
    (tmp_path / "runner" / ".runner").write_text("{}")
    row = look("earlier_registration", settings())
    assert row["status"] == "warn"
    assert ".runner" in row["detail"]


def test_too_little_room_fails(settings):
    row = look("free_disk", settings(bootstrap__min_free_disk="900TB"))
    assert (row["status"], row["category"]) == ("fail", "infrastructure")
    assert "900000.0 GB wanted" in row["detail"]


def test_a_mount_that_is_missing_or_none_fails(settings, tmp_path):
    row = look("mounts", settings(bootstrap__mounts=f"/proc,{tmp_path}"))
    assert row["status"] == "fail"
    assert f"{tmp_path} is not a mount point" in row["detail"]
    assert look("mounts", settings(bootstrap__mounts="/proc"))["status"] == "ok"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_folder_that_we_may_not_write_to_is_a_misconfiguration(settings, tmp_path):
    wanted = settings(paths__state="/etc/miglet-state")
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        row = look("folders_writable", wanted)
        good = row["status"] == "fail" and "paths.state" in row["hint"]
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0


@contextlib.contextmanager
def docker_at(path, answer: bytes, delay: float = 0.0) -> Iterator[None]:
    """A Docker Engine as far as its ping, there after a while."""
    stopped = threading.Event()

    def serve() -> None:
        stopped.wait(delay)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(0.05)
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1000)
                        connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


PONG = b"HTTP/1.0 200 OK\r\n\r\nOK"


@pytest.fixture
def docker_socket(tmp_path, monkeypatch):
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_docker_that_answers_is_fine(settings, docker_socket):
    with docker_at(docker_socket, PONG):
        eventually(docker_socket.exists)
        row = look("docker", settings(bootstrap__docker="required"))
    assert row["status"] == "ok"


def test_docker_that_is_required_is_waited_for_while_it_starts(settings, docker_socket):
    with docker_at(docker_socket, PONG, delay=0.6):
        row = look("docker", settings(bootstrap__docker="required"))
    assert row["status"] == "ok"
    assert row["milliseconds"] >= 500


def test_docker_that_is_required_and_missing_fails(settings, docker_socket):
    row = look("docker", settings(bootstrap__docker="required"), seconds=0.3)
    assert (row["status"], row["category"]) == ("fail", "infrastructure")
    assert str(docker_socket) in row["detail"]


def test_docker_that_is_optional_and_ill_is_a_warning(settings, docker_socket):
    with docker_at(docker_socket, b"HTTP/1.0 500 Oops\r\n\r\n"):
        eventually(docker_socket.exists)
        row = look("docker", settings(bootstrap__docker="optional"), seconds=0.3)
    assert row["status"] == "warn"
    assert "500" in row["detail"]


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        (None, 0o600, "No such file"),
        ("", 0o600, "empty"),
        ("token", 0o644, "everybody can read"),
    ],
)
def test_a_credential_that_is_of_no_use_or_for_all_is_told(
    settings, tmp_path, content, mode, told
):
    path = tmp_path / "token"
    path.unlink()
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    row = look("controller_credential", settings())
    assert row["status"] == "warn"
    assert told in row["detail"]


@contextlib.contextmanager
def tls_server(certificate, key) -> Iterator[int]:
    """Shakes hands and says good-bye; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        stopped = threading.Event()

        def serve() -> None:
            while not stopped.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    connection.settimeout(2.0)
                    with connection, context.wrap_socket(connection, True) as secure:
                        secure.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            thread.join()


@pytest.mark.parametrize(
    ("how", "status", "told"),
    [
        ({}, "ok", "TLSv1"),
        ({"until": NOW}, "warn", "expired"),
        ({"names": ("elsewhere.example",)}, "warn", "mismatch"),
    ],
)
def test_what_is_wrong_with_the_controllers_certificate_is_named(
    settings, tmp_path, how, status, told
):
    authority = Authority(tmp_path, "authority")
    with tls_server(*authority.issue("controller", **how)) as port:
        wanted = settings(
            bootstrap__network="yes",
            controller__endpoint=f"https://127.0.0.1:{port}",
            controller__auth__ca_path=authority.path,
        )
        row = look("controller_reachable", wanted)
    assert row["status"] == status
    assert told in row["detail"]


def test_a_controller_that_is_not_there_is_a_warning(settings):
    row = look("controller_reachable", settings(bootstrap__network="yes"))
    assert row["status"] == "warn"
    assert "refused" in row["detail"]


def test_a_check_that_hangs_is_answered_for(settings):
    never = threading.Event()

    def hangs(settings: Settings, deadline: float) -> str:
        never.wait(30)
        return "never"

    checks = {"needed": Check(hangs), "brief": Check(hangs, 0.3)}
    began = time.monotonic()
    rows = report(settings(bootstrap__timeout="1s"), checks)
    never.set()
    assert time.monotonic() - began < 2.5
    assert [row["status"] for row in rows] == ["fail", "warn"]
    assert "no answer within 1 s" in rows[0]["detail"]


def test_what_is_only_nice_to_know_does_not_hold_up_the_boot(settings):
    never = threading.Event()

    def hangs(settings: Settings, deadline: float) -> str:
        never.wait(30)
        return "never"

    began = time.monotonic()
    report(settings(), {"brief": Check(hangs, 0.3)})
    never.set()
    assert time.monotonic() - began < 1.5


def test_the_table_is_for_people(settings):
    def wrong(settings: Settings, deadline: float) -> str:
        raise Misconfiguration("it is wrong", "put it right")

    text = table(report(settings(), {"thing": Check(wrong)}))
    assert "fail  thing" in text
    assert "-> put it right" in text
    assert "1 checks: 0 ok, 0 warn, 1 fail" in text
    assert preflight.table is table
