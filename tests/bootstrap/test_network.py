"""The checks of the network, against servers on loopback that are right and wrong."""

from __future__ import annotations

import socket
import time
from email.utils import formatdate

import pytest

from miglet.bootstrap.framework import report
from tests.authority import DAY, NOW
from tests.bootstrap.servers import Serve, over_tls, served, silent
from tests.preflight_machine import look, settings_of
from tests.support import Stopwatch

pytestmark = pytest.mark.integration


def answering(text: str) -> Serve:
    def answer(connection: socket.socket) -> None:
        if connection.recv(4096):
            connection.sendall(text.encode())

    return answer


def dated(offset: float) -> str:
    at = formatdate(time.time() + offset, usegmt=True)
    return f"HTTP/1.0 404 Not Found\r\nServer: x\r\nDate: {at}\r\n\r\n"


def online(folder, endpoint, **more):
    return settings_of(
        folder, bootstrap__network="yes", controller__endpoint=endpoint, **more
    )


@pytest.mark.parametrize(
    ("how", "status", "expected", "hint"),
    [
        ({}, "ok", "TLSv1.3 to 127.0.0.1:", ""),
        ({"until": NOW - DAY}, "warn", "certificate has expired", "timedatectl"),
        ({"names": ("else.example",)}, "warn", "mismatch", "was issued for"),
    ],
)
def test_what_is_wrong_with_the_controllers_certificate_is_named(
    tmp_path, authority, how, status, expected, hint
):
    pair = authority.issue("controller", **how)
    with served(over_tls(*pair, silent)) as port:
        settings = online(
            tmp_path,
            f"https://127.0.0.1:{port}",
            controller__auth__ca_path=authority.path,
        )
        row = look("controller_reachable", settings)
    assert row["status"] == status
    assert expected in row["detail"]
    assert hint in row["hint"]


def test_an_authority_that_nobody_knows_is_named(tmp_path, authority):
    with served(over_tls(*authority.issue("controller"), silent)) as port:
        settings = online(tmp_path, f"https://127.0.0.1:{port}")
        row = look("controller_reachable", settings)
    assert row["status"] == "warn"
    assert "unable to get local issuer certificate" in row["detail"]
    assert "controller.auth.ca_path" in row["hint"]


def test_a_plain_server_behind_https_is_named(tmp_path):
    with served(answering("HTTP/1.0 400 Bad Request\r\n\r\n")) as port:
        settings = online(tmp_path, f"https://127.0.0.1:{port}")
        row = look("controller_reachable", settings)
    assert row["status"] == "warn"
    assert "TLS handshake failed: wrong version number" in row["detail"]
    assert "http://" in row["hint"]


def test_a_server_that_never_shakes_hands_is_given_up(tmp_path):
    with served(silent) as port:
        settings = online(tmp_path, f"https://127.0.0.1:{port}")
        row = look("controller_reachable", settings, seconds=0.3)
    assert row["status"] == "warn"
    assert "timed out" in row["detail"]
    assert row["milliseconds"] < 2500


def test_a_controller_that_is_not_there_is_a_warning(tmp_path):
    row = look("controller_reachable", online(tmp_path, "http://127.0.0.1:1"))
    assert (row["status"], row["detail"]) == (
        "warn",
        "127.0.0.1:1: Connection refused",
    )


def test_a_plain_controller_is_reached_over_tcp(tmp_path):
    with served(silent) as port:
        row = look("controller_reachable", online(tmp_path, f"http://127.0.0.1:{port}"))
    assert (row["status"], row["detail"]) == ("ok", f"TCP to 127.0.0.1:{port}")


def test_behind_a_proxy_only_the_proxy_is_tried(tmp_path):
    with served(silent) as port:
        settings = online(
            tmp_path,
            "https://controller.invalid",
            controller__proxy=f"http://user:secret@127.0.0.1:{port}",
            runner__proxy=f"http://127.0.0.1:{port}",
        )
        names = ("controller_reachable", "github_reachable", "clock")
        rows = [look(name, settings) for name in names]
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert rows[0]["detail"] == f"TCP to the proxy 127.0.0.1:{port}"
    assert rows[1]["detail"] == rows[2]["detail"]
    assert "secret" not in str(rows)


def test_nothing_is_tried_where_that_is_not_wanted(tmp_path):
    settings = settings_of(tmp_path)
    names = ("controller_reachable", "github_reachable", "github_api_reachable")
    for name in (*names, "clock"):
        row = look(name, settings)
        assert (row["status"], row["detail"]) == (
            "ok",
            "not asked for (bootstrap.network)",
        )


def test_a_name_that_nobody_knows_is_named(tmp_path):
    row = look("controller_reachable", online(tmp_path, "https://controller.invalid"))
    assert row["status"] == "warn"
    assert row["detail"].startswith("controller.invalid cannot be resolved: ")
    assert "resolv.conf" in row["hint"]


@pytest.mark.parametrize(
    ("offset", "status"), [(0, "ok"), (250, "ok"), (400, "warn"), (-7200, "warn")]
)
def test_a_clock_that_is_off_is_reported(tmp_path, offset, status):
    with served(answering(dated(offset))) as port:
        row = look("clock", online(tmp_path, f"http://127.0.0.1:{port}/base"))
    assert row["status"] == status
    shown = int(row["detail"].split(" s ")[0].rpartition(" ")[2])
    assert abs(shown - offset) <= 2


@pytest.mark.parametrize(
    "text",
    [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nDate: yesterday\r\n\r\n",
        "<html>" * 10_000,
        "",
    ],
)
def test_a_controller_without_a_clock_is_no_fault(tmp_path, text):
    with served(answering(text)) as port:
        row = look("clock", online(tmp_path, f"http://127.0.0.1:{port}"))
    assert (row["status"], row["detail"]) == (
        "ok",
        "the controller does not tell the time",
    )


def test_a_controller_that_cannot_be_reached_leaves_the_clock_alone(tmp_path):
    row = look("clock", online(tmp_path, "http://127.0.0.1:1"))
    expected = "not known: the controller does not answer"
    assert (row["status"], row["detail"]) == ("ok", expected)


def test_a_silent_controller_holds_the_boot_up_for_three_seconds_only(tmp_path):
    with served(silent) as port:
        settings = online(tmp_path, f"https://127.0.0.1:{port}")
        watch = Stopwatch()
        rows = {row["id"]: row for row in report(settings)}
    assert watch.seconds() < 8
    assert rows["controller_reachable"]["status"] == "warn"
    assert [row for row in rows.values() if row["status"] == "fail"] == []
