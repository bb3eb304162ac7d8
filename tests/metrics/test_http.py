"""The endpoint over real sockets: what it answers, and whom it does not wait for."""

from __future__ import annotations

import http.client
import os
import resource
import select
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from miglet.metrics.http import CLIENTS, Answer, Endpoint, parse_listen
from miglet.metrics.pages import Pages
from tests.support import eventually

ROUTES = {
    "/healthz": lambda accept: Answer.of_text(200, "ok"),
    "/readyz": lambda accept: Answer.of_text(503, "draining"),
    "/metrics": lambda accept: Answer(200, accept.encode(), "text/x"),
    "/large": lambda accept: Answer(200, b"x" * 20_000_000),
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Loop:
    """Stands in for the worker's loop: watches one descriptor, in a thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.wakes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            if select.select([self.endpoint], [], [], 0.02)[0]:
                self.wakes += 1
                self.endpoint.serve()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endpoint(clock: Clock) -> Iterator[Endpoint]:
    opened = Endpoint("127.0.0.1", 0, ROUTES, clock)
    loop = Loop(opened)
    yield opened
    loop.end()
    opened.close()


def connected(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection(endpoint.address, timeout=10)


def everything(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def said(endpoint: Endpoint, request: bytes) -> bytes:
    client = connected(endpoint)
    client.sendall(request)
    return everything(client)


def status(endpoint: Endpoint, request: bytes) -> int:
    return int(said(endpoint, request).split(b" ")[1])


def test_a_page_is_answered_with_its_type_and_length(endpoint: Endpoint):
    url = "http://{}:{}/healthz?x=1".format(*endpoint.address)
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200 and answer.read() == b"ok\n"
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Content-Length"] == "3"


def test_a_red_page_is_503(endpoint: Endpoint):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen("http://{}:{}/readyz".format(*endpoint.address))
    assert refused.value.code == 503
    assert refused.value.read() == b"draining\n"
    refused.value.close()


def test_the_accept_header_reaches_the_page(endpoint: Endpoint):
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\naccept: a/b\r\n\r\n"
    assert said(endpoint, request).endswith(b"\r\n\r\n a/b")


def test_head_has_the_same_head_and_no_body(endpoint: Endpoint):
    head = said(endpoint, b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert head.endswith(b"\r\n\r\n") and b"Content-Length: 3\r\n" in head
    assert said(endpoint, b"GET /healthz HTTP/1.1\r\n\r\n") == head + b"ok\n"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.0\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"hello\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\xff\xfe\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 100_000, 431),
        (b"GET /healthz HTTP/1.1\r\n\r\n" + b"GET /readyz HTTP/1.1\r\n\r\n", 200),
    ],
)
def test_what_is_no_request_for_a_page_is_told_so(
    endpoint: Endpoint, request_: bytes, expected: int
):
    assert status(endpoint, request_) == expected


def test_405_names_the_methods(endpoint: Endpoint):
    assert b"\r\nAllow: GET, HEAD\r\n" in said(endpoint, b"PUT / HTTP/1.1\r\n\r\n")


def test_a_request_may_come_in_pieces(endpoint: Endpoint):
    client = connected(endpoint)
    for piece in (b"GET /hea", b"lthz HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n"):
        client.sendall(piece)
    assert everything(client).endswith(b"ok\n")


def test_a_large_answer_to_a_slow_reader_holds_up_nobody(endpoint: Endpoint):
    slow = connected(endpoint)
    slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
    assert slow.recv(100)
    assert status(endpoint, b"GET /healthz HTTP/1.1\r\n\r\n") == 200
    assert len(everything(slow)) > 19_999_900


def test_a_slow_client_is_sent_away_in_time(endpoint: Endpoint, clock: Clock):
    slow = connected(endpoint)
    slow.sendall(b"GET /he")
    eventually(lambda: endpoint._clients, what="the client is known")
    clock.now = 4.9
    endpoint.expire(clock.now)
    slow.sendall(b"a")
    clock.now = 5.0
    endpoint.expire(clock.now)
    slow.settimeout(10)
    with slow, pytest.raises(ConnectionError):
        while slow.recv(1):
            pass
        raise ConnectionError("closed in order")
    assert status(endpoint, b"GET /healthz HTTP/1.1\r\n\r\n") == 200


def test_a_hundred_silent_clients_shut_nobody_out(endpoint: Endpoint):
    silent = [connected(endpoint) for _ in range(100)]
    for client in silent:
        client.sendall(b"GET /")
    assert status(endpoint, b"GET /healthz HTTP/1.1\r\n\r\n") == 200
    assert len(endpoint._clients) <= CLIENTS
    for client in silent:
        client.close()
    eventually(lambda: not endpoint._clients, what="all clients are gone")


def test_a_client_that_goes_is_forgotten(endpoint: Endpoint):
    for _ in range(20):
        client = connected(endpoint)
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        client.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + b"\0\0\0\0"
        )
        client.close()
    eventually(lambda: not endpoint._clients, what="all clients are gone")
    assert status(endpoint, b"GET /healthz HTTP/1.1\r\n\r\n") == 200


def test_an_idle_endpoint_wakes_nobody():
    opened = Endpoint("127.0.0.1", 0, ROUTES)
    loop = Loop(opened)
    assert status(opened, b"GET /healthz HTTP/1.1\r\n\r\n") == 200
    eventually(lambda: not opened._clients)
    before = loop.wakes
    assert not select.select([opened], [], [], 0.2)[0]
    assert loop.wakes == before
    loop.end()
    opened.close()


def test_without_descriptors_it_waits_and_then_goes_on():
    pid = os.fork()
    if pid == 0:
        endpoint = Endpoint("127.0.0.1", 0, ROUTES)
        client = connected(endpoint)
        limit = endpoint.fileno() + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        endpoint.serve()
        waits = not select.select([endpoint], [], [], 0)[0]
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        endpoint.expire(0.0)
        for _ in range(4):
            select.select([endpoint], [], [], 1)
            endpoint.serve()
        os._exit(0 if waits and client.recv(12) == b"HTTP/1.1 200" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_address_in_use_is_an_error(endpoint: Endpoint):
    with pytest.raises(OSError, match="in use"):
        Endpoint(*endpoint.address, ROUTES)


def test_it_listens_on_ipv6_too():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    opened = Endpoint("::1", 0, ROUTES)
    loop = Loop(opened)
    assert status(opened, b"GET /healthz HTTP/1.1\r\n\r\n") == 200
    loop.end()
    opened.close()


def test_the_real_pages_over_http():
    pages = Pages(60.0)
    pages.told({"state": "idle", "version": "1"})
    pages.sampled({"load1": 1.0})
    opened = Endpoint("127.0.0.1", 0, pages.routes())
    loop = Loop(opened)
    connection = http.client.HTTPConnection(*opened.address, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"miglet_load1", "miglet_state"} <= names
    assert status(opened, b"GET /readyz HTTP/1.1\r\n\r\n") == 200
    connection.close()
    loop.end()
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
