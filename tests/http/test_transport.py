"""The client against real sockets whose other end means no good."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import struct
import threading
import time
from types import SimpleNamespace

import pytest

from miglet.controller.client import Client
from miglet.errors import BadAnswer, ControllerError, ControllerUnreachable
from miglet.http.transport import DeadlinePassed
from tests.support import Stopwatch, descriptors_before

pytestmark = pytest.mark.integration

SECRET = "the-controllers-own-token"
EVENT = {"id": "e-1", "type": "VMStarted", "trace_id": None}
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LIMIT = 1024 * 1024


class Peer:
    """A server that plays `scripts`, one per connection; the last one repeats.

    A script is a function of (peer, connection); `requests` are the heads received.
    """

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.requests = []
        self.connections = 0
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                script = self.scripts[min(self.connections, len(self.scripts) - 1)]
                self.connections += 1
                thread = threading.Thread(
                    target=self.play, args=(script, connection), daemon=True
                )
                self.threads.append(thread)
                thread.start()

    def play(self, script, connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            script(self, connection)

    def request(self, connection):
        """Read one request; False when the client has gone."""
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            if not piece:
                return False
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = [x for x in head.split(b"\r\n") if x.lower().startswith(b"content-l")]
        missing = int(length[0].split(b":")[1]) - len(body) if length else 0
        while missing > 0:
            missing -= len(connection.recv(missing))
        self.requests.append(head.decode())
        return True

    def close(self):
        self.ended.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


def says(*pieces, every=0.0):
    """Answer each request with `pieces`; close when the client does."""

    def script(peer, connection):
        while peer.request(connection):
            for piece in pieces:
                connection.sendall(piece)
                if every:
                    peer.ended.wait(every)

    return script


def says_and_closes(*pieces):
    def script(peer, connection):
        peer.request(connection)
        for piece in pieces:
            connection.sendall(piece)

    return script


def for_ever(piece, every):
    def script(peer, connection):
        peer.request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not peer.ended.wait(every):
            connection.sendall(piece)

    return script


def silent(peer, connection):
    peer.request(connection)
    peer.ended.wait(10)


def resets(peer, connection):
    peer.request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(body, *headers, length=None):
    length = len(body) if length is None else length
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def settings(tmp_path):
    token = tmp_path / "token"
    token.write_text(SECRET)
    auth = SimpleNamespace(type="bearer", token_path=str(token), ca_path=None)
    return SimpleNamespace(endpoint="", auth=auth, timeout=5.0, proxy=None)


@pytest.fixture
def facing(settings):
    """facing(*scripts) -> client, peer"""
    with contextlib.ExitStack() as stack:

        def start(*scripts, timeout=5.0):
            peer = Peer(*scripts)
            stack.callback(peer.close)
            settings.endpoint, settings.timeout = peer.endpoint, timeout
            client = Client(settings, "vm-1")
            stack.callback(client.close)
            return client, peer

        yield start


# ---- time ----------------------------------------------------------------------

DRAGGING = {
    "silence": silent,
    "slow headers": for_ever(b"X-A: b\r\n", 0.02),
    "slow header bytes": for_ever(b"x", 0.02),
    "slow body": for_ever(b"Content-Length: 999\r\n\r\nxxxxx", 0.02),
    "slow chunks": for_ever(b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", 0.02),
    "endless 100": says(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 500, every=0.02),
    "endless 103": says(*[b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 500, every=0.02),
}


@pytest.mark.parametrize("script", DRAGGING.values(), ids=DRAGGING)
def test_the_whole_of_a_call_has_a_limit(facing, script):
    client, _ = facing(script, says(EMPTY), timeout=0.3)
    watch = Stopwatch()
    with pytest.raises(ControllerUnreachable):
        client.post_event(EVENT)
    assert watch.seconds() < 1.0
    assert client.post_event(EVENT)  # still of use


@pytest.mark.parametrize(
    "status", ["100 Continue", "102 Processing", "103 Early Hints"]
)
def test_interim_answers_are_skipped(facing, status):
    interim = f"HTTP/1.1 {status}\r\nLink: </x>\r\n\r\n".encode()
    client, peer = facing(says(interim * 3 + answer(b'{"acknowledged": false}')))
    assert client.post_event(EVENT) is False
    assert client.post_event(EVENT) is False
    assert peer.connections == 1


def test_a_switch_of_protocols_that_nobody_asked_for_is_no_answer(facing):
    client, _ = facing(says_and_closes(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"))
    with pytest.raises(ControllerUnreachable, match="101 Switching Protocols"):
        client.post_event(EVENT)


def test_a_late_answer_is_reported_as_such(facing):
    client, _ = facing(DRAGGING["slow body"], timeout=0.2)
    with pytest.raises(DeadlinePassed, match=r"within 0\.2 s") as caught:
        client.post_event(EVENT)
    assert caught.value.transient


def test_a_late_answer_is_not_taken_for_the_next_ones(facing):
    def late(peer, connection):
        peer.request(connection)
        peer.ended.wait(0.4)
        connection.sendall(answer(b'{"acknowledged": false}'))

    client, peer = facing(late, says(EMPTY), timeout=0.2)
    with pytest.raises(ControllerUnreachable):
        client.post_event(EVENT)
    assert client.post_event(EVENT)
    assert peer.connections == 2


def test_a_long_poll_may_take_its_wait_and_the_timeout(facing):
    def waits(peer, connection):
        peer.request(connection)
        peer.ended.wait(0.4)
        connection.sendall(answer(b'{"commands": [], "vm_id": "vm-1"}'))

    client, _ = facing(waits, silent, timeout=0.3)
    assert client.commands(0.3) == []
    began = time.monotonic()
    watch = Stopwatch()
    with pytest.raises(ControllerUnreachable):
        client.commands(0.2)
    assert time.monotonic() - began > 0.4
    assert watch.seconds() < 1.2


# ---- sizes and broken answers --------------------------------------------------


def endless(peer, connection):
    peer.request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not peer.ended.is_set():
        connection.sendall(b" " * 65536)


BOMB = gzip.compress(b" " * 20 * LIMIT)
MANY = [f"X-{number}: x" for number in range(101)]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "endless body": (endless, "longer than 1048576"),
    "announced too long": (says(answer(b"", length=LIMIT + 1)), "longer than"),
    "announced absurdly": (says(answer(b"", length="9" * 400)), "longer than"),
    "too long": (says(answer(b" " * (LIMIT + 1))), "longer than"),
    "too long in chunks": (
        says(CHUNKED, *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * 17),
        "longer than",
    ),
    "gzip bomb": (says(answer(BOMB, "Content-Encoding: gzip")), "packed .gzip."),
    "cut": (says_and_closes(answer(b"{}", length=20)), "2 of 20|2 bytes read"),
    "cut chunks": (says_and_closes(CHUNKED + b"ff\r\n{"), "IncompleteRead"),
    "bad chunks": (says_and_closes(CHUNKED + b"zz\r\n{}"), "chunk|IncompleteRead"),
    "garbage": (says_and_closes(b"\x00\x01\x02 SSH-2.0 garbage\r\n\r\n"), "not HTTP"),
    "garbage without end": (says_and_closes(b"x" * 200_000), "not HTTP"),
    "other protocol": (says_and_closes(b"220 mail ESMTP\r\n"), "not HTTP"),
    "absurd status": (says_and_closes(b"HTTP/1.1 abc OK\r\n\r\n"), "not HTTP"),
    "too many headers": (says(answer(b"", *MANY)), "not HTTP.*more than 100 headers"),
    "header too long": (says(answer(b"", "X: " + "x" * 70_000)), "not HTTP.*LineToo"),
    "nothing at all": (says_and_closes(), "closed connection without response"),
    "half a head": (says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Le"), "not JSON|cut|"),
    "reset": (resets, "reset by peer"),
}


@pytest.mark.parametrize(("script", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_reported_and_survived(facing, script, expected):
    client, peer = facing(script, says(answer(b"{}")))
    with pytest.raises(ControllerUnreachable, match=expected) as caught:
        client.registration_token({})
    assert caught.value.transient
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
    assert peer.connections == 1
    client.heartbeat({})


def test_a_body_of_the_greatest_length_is_read(facing):
    client, _ = facing(says(answer(b"{" + b" " * (LIMIT - 2) + b"}")))
    client.heartbeat({})


@pytest.mark.parametrize("length", ["abc", "-5", "+2", "", "2, 2", "\u0662"])
def test_a_length_that_is_no_number_does_not_count(facing, length):
    raw = answer(b"{}", length=length.encode("utf-8").decode("latin-1"))
    client, _ = facing(says_and_closes(raw), says(EMPTY))
    with contextlib.suppress(ControllerUnreachable):
        client.heartbeat({})
    client.heartbeat({})


def test_identity_as_an_encoding_is_none(facing):
    client, _ = facing(says(answer(b"{}", "Content-Encoding: Identity")))
    client.heartbeat({})


# ---- reachability --------------------------------------------------------------


def test_a_closed_port_is_reported_in_a_few_words(settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ControllerUnreachable) as caught:
        Client(settings, "vm-1").heartbeat({})
    url = f"{settings.endpoint}/api/v1/vms/vm-1/heartbeat"
    assert str(caught.value) == f"POST {url} failed: Connection refused"


def test_a_name_that_does_not_resolve_is_reported(settings):
    settings.endpoint = "http://controller.invalid"
    expected = "POST http://controller.invalid/.* failed: name resolution failed: "
    with pytest.raises(ControllerUnreachable, match=expected):
        Client(settings, "vm-1").heartbeat({})


@pytest.mark.parametrize("proxy", ["http://proxy.invalid:3128", "{closed}"])
def test_a_proxy_that_cannot_be_reached_is_named(settings, proxy):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"http://us:er@127.0.0.1:{listener.getsockname()[1]}"
    settings.endpoint = "http://controller.example"
    settings.proxy = proxy.format(closed=closed)
    expected = r"controller.example/.* failed: .*\(proxy (proxy.invalid|127.0.0.1)\)"
    with pytest.raises(ControllerUnreachable, match=expected) as caught:
        Client(settings, "vm-1").heartbeat({})
    assert "us:er" not in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "[::1", "x" * 80 + ".example"])
def test_an_impossible_host_is_no_crash(settings, host):
    settings.endpoint = f"http://{host}"
    with pytest.raises(ControllerUnreachable):
        Client(settings, "vm-1").heartbeat({})


# ---- keep-alive ----------------------------------------------------------------


def test_the_connection_is_kept(facing):
    client, peer = facing(says(answer(b"{}")))
    for _ in range(5):
        client.heartbeat({})
    assert (peer.connections, len(peer.requests)) == (1, 5)


def test_an_error_of_the_controllers_keeps_the_connection(facing):
    client, peer = facing(says(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"))
    for _ in range(3):
        with pytest.raises(ControllerUnreachable, match="503 Service Unavail.*busy"):
            client.heartbeat({})
    assert peer.connections == 1


def test_a_refused_credential_is_shown_again_on_a_new_connection(facing):
    denied = says(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    client, peer = facing(denied, says(EMPTY))
    client.heartbeat({})
    assert (peer.connections, len(peer.requests)) == (2, 2)


def closes_at_the_second_request(peer, connection):
    peer.request(connection)
    connection.sendall(EMPTY)
    peer.request(connection)


def resets_at_the_second_request(peer, connection):
    peer.request(connection)
    connection.sendall(EMPTY)
    resets(peer, connection)


@pytest.mark.parametrize(
    "script", [closes_at_the_second_request, resets_at_the_second_request]
)
def test_a_kept_connection_that_was_closed_costs_one_more_request(facing, script):
    client, peer = facing(script, says(EMPTY))
    client.heartbeat({})
    watch = Stopwatch()
    client.heartbeat({})
    assert watch.seconds() < 0.5
    assert (peer.connections, len(peer.requests)) == (2, 3)


def test_but_only_one_more(facing):
    client, peer = facing(closes_at_the_second_request, says_and_closes())
    client.heartbeat({})
    with pytest.raises(ControllerUnreachable, match="without response"):
        client.heartbeat({})
    assert len(peer.requests) == 3


def test_a_new_connection_that_is_closed_is_not_tried_again(facing):
    client, peer = facing(says_and_closes())
    with pytest.raises(ControllerUnreachable):
        client.heartbeat({})
    assert len(peer.requests) == 1


def test_a_connection_closed_while_idle_costs_nothing(facing):
    client, peer = facing(says_and_closes(EMPTY), says(EMPTY))
    client.heartbeat({})
    peer.threads[-1].join(5)
    client.heartbeat({})
    assert len(peer.requests) == 2


# ---- nothing but our configuration ---------------------------------------------


def redirect(status, target):
    head = f"HTTP/1.1 {status} Go\r\nLocation: {target}/x\r\nContent-Length: 0\r\n\r\n"
    return says(head.encode())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_target_of_a_redirect_sees_nothing(facing, status):
    target = Peer(says(EMPTY))
    client, peer = facing(redirect(status, target.endpoint))
    with pytest.raises(BadAnswer, match=r"redirect to 127\.0\.0\.1:\d+ not followed"):
        client.post_event(EVENT)
    target.close()
    assert (len(peer.requests), target.connections) == (1, 0)


def test_a_redirect_with_an_endless_body_is_not_read_to_its_end(facing):
    def script(peer, connection):
        peer.request(connection)
        connection.sendall(b"HTTP/1.1 302 Go\r\nLocation: /x\r\n\r\n")
        while not peer.ended.is_set():
            connection.sendall(b" " * 65536)

    client, _ = facing(script)
    with pytest.raises(BadAnswer, match="longer than"):
        client.post_event(EVENT)


def test_netrc_and_the_environments_proxy_are_ignored(facing, tmp_path, monkeypatch):
    proxy = Peer(says(EMPTY))
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login evil password evil\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.endpoint)
    monkeypatch.delenv("no_proxy", raising=False)
    client, peer = facing(says(EMPTY))
    client.heartbeat({})
    proxy.close()
    assert f"Authorization: Bearer {SECRET}" in peer.requests[0]
    assert proxy.connections == 0


def test_the_configured_proxy_is_used(settings):
    proxy = Peer(says(EMPTY))
    settings.endpoint, settings.proxy = "http://controller.invalid", proxy.endpoint
    client = Client(settings, "vm-1")
    client.heartbeat({})
    client.close()
    proxy.close()
    assert proxy.requests[0].startswith(
        "POST http://controller.invalid/api/v1/vms/vm-1/heartbeat"
    )


def test_cookies_are_not_kept(facing):
    client, peer = facing(says(answer(b"", "Set-Cookie: a=b; path=/")))
    client.heartbeat({})
    client.heartbeat({})
    assert "cookie" not in peer.requests[1].lower()


def test_what_goes_over_the_wire_is_what_the_contract_says(facing):
    client, peer = facing(says(EMPTY))
    client.post_event({**EVENT, "id": "e-7"})
    head = peer.requests[0]
    assert head.startswith("POST /api/v1/vms/vm-1/events HTTP/1.1")
    assert head.lower().count("accept-encoding: identity") == 1
    assert head.lower().count("user-agent: miglet/") == 1
    assert "Idempotency-Key: e-7" in head


# ---- secrets, forks, changes ---------------------------------------------------


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("script", [silent, resets, says_and_closes(), says(b"x\r\n")])
def test_no_error_and_nothing_behind_it_says_the_secret(facing, script):
    client, _ = facing(script, timeout=0.3)
    with pytest.raises(ControllerError) as caught:
        client.post_event(EVENT)
    for error in chain(caught.value):
        assert SECRET not in str(error) + repr(error)


def test_a_new_client_has_nothing_open(settings):
    before = descriptors_before()
    settings.endpoint = "https://127.0.0.1:1"
    settings.auth.token_path = "/nonexistent"
    Client(settings, "vm-1").close()
    assert os.listdir("/proc/self/fd") == before


def test_failures_leak_no_descriptors(facing):
    client, _ = facing(resets, timeout=0.2)
    for _ in range(3):
        with pytest.raises(ControllerUnreachable):
            client.heartbeat({})
    client.close()
    before = len(descriptors_before())
    for _ in range(20):
        with pytest.raises(ControllerUnreachable):
            client.heartbeat({})
    client.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the peer's last one


def test_a_changed_timeout_keeps_the_connection(facing, settings):
    client, peer = facing(says(EMPTY))
    client.heartbeat({})
    client.apply(SimpleNamespace(**{**vars(settings), "timeout": 1.0}))
    client.heartbeat({})
    assert peer.connections == 1


def test_a_changed_endpoint_is_used_at_once(facing, settings):
    other = Peer(says(EMPTY))
    client, peer = facing(says(EMPTY))
    client.heartbeat({})
    client.apply(SimpleNamespace(**{**vars(settings), "endpoint": other.endpoint}))
    client.heartbeat({})
    client.close()
    other.close()
    assert (len(peer.requests), len(other.requests)) == (1, 1)
