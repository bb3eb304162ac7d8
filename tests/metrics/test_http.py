"""The metrics server over real sockets: answers, slow clients, floods."""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from miglet.metrics.http import MAX_CLIENTS, MetricsServer, RequestHandler, parse_listen
from miglet.metrics.prometheus import Pages
from tests.support import eventually

pytestmark = pytest.mark.integration

LARGE = b"x" * 20_000_000


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/accept":
        body = environ.get("HTTP_ACCEPT", "").encode()
    else:
        body = {"/large": LARGE, "/healthz": b"ok\n"}.get(path, b"")
    status = "200 OK" if body else "503 Service Unavailable"
    start_response(status, [("Content-Type", "text/plain")])
    return [body]


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    opened = MetricsServer("127.0.0.1", 0, application)
    yield opened
    opened.close()


def connected(server: MetricsServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=10)


def everything(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def response(server: MetricsServer, request: bytes) -> bytes:
    client = connected(server)
    client.sendall(request)
    return everything(client)


def status(server: MetricsServer, request: bytes) -> int:
    return int(response(server, request).split(b" ")[1])


def is_closed_by_server(client: socket.socket) -> bool:
    """Whether the server ends the connection, in order or by a reset."""
    client.settimeout(10)
    try:
        with client:
            while client.recv(4096):
                pass
    except ConnectionError:
        pass
    return True


def test_a_page_is_answered_with_its_type_and_length(server: MetricsServer):
    url = "http://{}:{}/healthz?x=1".format(*server.address)
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200 and answer.read() == b"ok\n"
        assert answer.headers["Content-Type"] == "text/plain"
        assert answer.headers["Content-Length"] == "3"


def test_a_page_that_is_not_well_is_503(server: MetricsServer):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen("http://{}:{}/readyz".format(*server.address))
    assert refused.value.code == 503
    refused.value.close()


def test_the_accept_header_reaches_the_page(server: MetricsServer):
    request = b"GET /accept HTTP/1.1\r\nHost: x\r\naccept: a/b\r\n\r\n"
    assert response(server, request).endswith(b"\r\n\r\na/b")


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"GET /healthz HTTP/x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\xff\xfe\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(server: MetricsServer, request_: bytes):
    assert b"200 OK" not in response(server, request_)
    assert status(server, b"GET /healthz HTTP/1.1\r\n\r\n") == 200


def test_a_request_may_come_in_pieces(server: MetricsServer):
    client = connected(server)
    for piece in (b"GET /hea", b"lthz HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n"):
        client.sendall(piece)
    assert everything(client).endswith(b"ok\n")


def test_a_large_answer_to_a_slow_reader_delays_nobody(server: MetricsServer):
    slow = connected(server)
    slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
    assert slow.recv(100)
    assert status(server, b"GET /healthz HTTP/1.1\r\n\r\n") == 200
    assert len(everything(slow)) > len(LARGE) - 100


def test_a_client_that_does_not_finish_its_request_is_disconnected(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(RequestHandler, "timeout", 0.05)
    slow = connected(server)
    slow.sendall(b"GET /he")
    assert is_closed_by_server(slow)
    eventually(lambda: not server._clients, what="the client is forgotten")


def test_a_hundred_silent_clients_shut_nobody_out(server: MetricsServer):
    silent = [connected(server) for _ in range(100)]
    for client in silent:
        client.sendall(b"GET /")
    assert status(server, b"GET /healthz HTTP/1.1\r\n\r\n") == 200
    assert len(server._clients) <= MAX_CLIENTS
    assert is_closed_by_server(silent[0])
    for client in silent:
        client.close()
    eventually(lambda: not server._clients, what="all clients are gone")


def test_a_client_that_resets_its_connection_is_forgotten(server: MetricsServer):
    for _ in range(20):
        client = connected(server)
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        linger = b"\1\0\0\0" + b"\0\0\0\0"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.close()
    eventually(lambda: not server._clients, what="all clients are gone")
    assert status(server, b"GET /healthz HTTP/1.1\r\n\r\n") == 200


def test_an_address_in_use_is_an_error(server: MetricsServer):
    with pytest.raises(OSError, match="in use"):
        MetricsServer(*server.address, application)


def test_it_listens_on_ipv6_too():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    opened = MetricsServer("::1", 0, application)
    assert status(opened, b"GET /healthz HTTP/1.1\r\n\r\n") == 200
    opened.close()


def test_a_closed_server_has_released_its_port(server: MetricsServer):
    address = server.address
    server.close()
    again = MetricsServer(*address, application)
    assert status(again, b"GET /healthz HTTP/1.1\r\n\r\n") == 200
    again.close()


def test_the_real_pages_over_http():
    pages = Pages(60.0)
    pages.show_agent({"states": {"idle": True}, "ready": True})
    pages.show_sample({"load1": 1.0})
    opened = MetricsServer("127.0.0.1", 0, pages)
    connection = http.client.HTTPConnection(*opened.address, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"miglet_load1", "miglet_state"} <= names
    connection.close()
    request = b"HEAD /readyz HTTP/1.1\r\n\r\n"
    head = response(opened, request)
    assert head.startswith(b"HTTP/1.0 200 OK") and head.endswith(b"\r\n\r\n")
    opened.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9469", ("127.0.0.1", 9469)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
    ],
)
def test_an_address_to_listen_on_is_understood(text: str, expected: tuple):
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    "text", ["", "9469", ":9469", "::1:9469", "host:", "host:x", "host:65536", "h:-1"]
)
def test_what_is_no_address_is_named(text: str):
    with pytest.raises(ValueError, match="address and a port|port is a number"):
        parse_listen(text)
