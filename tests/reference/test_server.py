"""The reference controller's door: tokens, certificates, and options that cannot be."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading

import pytest
import requests

from miglet.reference import cli
from tests.authority import Authority
from tests.reference.asking import status
from tests.reference_process import COMMAND, TOKEN, running_controller
from tests.support import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ],
)
def test_without_the_token_nothing_is_answered(controller, authorization):
    encoded = authorization.encode() if authorization else None
    headers = {"Authorization": encoded} if encoded else {}
    for path in ("vms", "nothing", "vms/vm-1/commands"):
        answer = requests.get(controller.url(path), headers=headers, timeout=10)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["status"] == 401
    assert TOKEN not in controller.log()


def test_the_scheme_is_matched_without_case(controller):
    assert status(controller.endpoint, f"bEARER {TOKEN}") == 200


def test_anonymous_lets_everybody_in(tmp_path):
    with running_controller(tmp_path, token_file=None, anonymous=True) as controller:
        assert status(controller.endpoint) == 200


def test_with_a_client_authority_certificates_open_the_door(tmp_path, authority):
    options = {
        "tls_cert": authority.combined("controller"),
        "client_ca": authority.path,
        "token_file": None,
    }
    client = str(authority.combined("client"))
    stranger = str(Authority(tmp_path, "stranger").combined("strangers-client"))
    with running_controller(tmp_path, **options) as controller:
        trust = {"verify": str(authority.path)}
        assert status(controller.endpoint, cert=client, **trust) == 200
        with pytest.raises(requests.ConnectionError):
            status(controller.endpoint, **trust)
        with pytest.raises(requests.ConnectionError):
            status(controller.endpoint, cert=stranger, **trust)


def test_with_both_either_token_or_certificate_opens_the_door(tmp_path, authority):
    options = {
        "tls_cert": authority.combined("controller"),
        "client_ca": authority.path,
    }
    client = str(authority.combined("client"))
    with running_controller(tmp_path, **options) as controller:
        trust = {"verify": str(authority.path)}
        assert controller.endpoint.startswith("https://")
        assert status(controller.endpoint, cert=client, **trust) == 200
        assert status(controller.endpoint, f"Bearer {TOKEN}", **trust) == 200
        assert status(controller.endpoint, **trust) == 401


def start(*words: object) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    command = [*COMMAND, "serve", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def status_of_serve(*words: object) -> int | str | None:
    """The status of such a start within this process, which has imported it all."""
    try:
        return cli.main(["serve", *map(str, words)])
    except SystemExit as left:
        return left.code


def test_options_that_cannot_be_are_reported_in_one_line(
    tmp_path, authority, monkeypatch, capsys
):
    monkeypatch.setattr(cli, "log_to_stderr", lambda level: None)
    db = tmp_path / "c.db"
    token, empty, not_a_db = tmp_path / "t", tmp_path / "empty", tmp_path / "no.db"
    token.write_text("T")
    empty.write_text("\n")
    not_a_db.write_bytes(b"not a database at all" * 100)
    pem = authority.path
    usual = ("--listen", "127.0.0.1:0", "--token-file", token)
    cases = [
        (("--database", db), 78, "nobody could call"),
        (("--database", db, "--token-file", empty), 69, "has no token"),
        (("--database", db, "--client-ca", pem), 78, "without --tls-cert"),
        (("--database", db, *usual, "--registration-token-file", token), 78, "-url"),
        (("--database", db, *usual, "--tls-cert", token), 69, "certificates"),
        (("--database", not_a_db, *usual), 69, "cannot use"),
        (("--database", tmp_path / "no" / "c.db", *usual), 69, "cannot use"),
        (("--database", db, "--listen", "nowhere"), 2, "not HOST:PORT"),
        (("--database", db, "--heartbeat-interval", "0"), 2, "number of seconds"),
    ]
    for words, exit_status, message in cases:
        assert status_of_serve(*words) == exit_status, words
        assert message in capsys.readouterr().err.splitlines()[-1], words


def test_a_port_or_a_database_in_use_is_reported(tmp_path, controller):
    port = controller.endpoint.rpartition(":")[2]
    token = ("--token-file", controller.token_path)
    ended = start(
        *token, "--database", tmp_path / "c.db", "--listen", f"127.0.0.1:{port}"
    )
    assert ended.returncode == 69
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    database = controller.token_path.parent / "controller.db"
    ended = start(*token, "--database", database, "--listen", "127.0.0.1:0")
    assert ended.returncode == 69
    assert "locked" in ended.stderr


def test_a_client_that_never_finishes_does_not_hold_up_the_end(tmp_path):
    with running_controller(tmp_path) as controller, socket.socket() as slow:
        host, port = controller.endpoint.removeprefix("http://").split(":")
        slow.connect((host, int(port)))
        lines = [
            "POST /api/v1/vms/vm-1/heartbeat HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {TOKEN}",
            "Content-Length: 10",
            "",
            "{",
        ]
        slow.sendall("\r\n".join(lines).encode())
        eventually(lambda: controller.knows("vm-1"))
        controller.process.send_signal(signal.SIGTERM)
        assert controller.process.wait(8) == 0


def test_sigint_ends_it_in_order_too(tmp_path):
    with running_controller(tmp_path) as controller:
        controller.process.send_signal(signal.SIGINT)
        assert controller.process.wait(8) == 0
        assert not (tmp_path / "controller" / "controller.db-wal").exists()


def test_garbage_does_not_disturb_the_others(controller):
    host, port = controller.endpoint.removeprefix("http://").split(":")

    def disturb() -> None:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(os.urandom(4096))

    threads = [threading.Thread(target=disturb) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controller.vms() == controller.vms()
