"""A proxy before the controller that makes the network fail as the test wants it.

It takes whole requests, so a change holds from the next request on, whatever
connections are kept; each request is counted, with its time of arrival.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.stub_controller import reset

#: What becomes of one request: the client's end, the request, the way on.
Treat = Callable[["FaultyProxy", socket.socket, bytes], None]


class Gone(Exception):
    """The connection is of no further use."""


@dataclass
class FaultyProxy:
    """The proxy. It forwards what comes until the test says otherwise."""

    upstream: tuple[str, int]
    treat: Treat | None = None
    #: Monotonic time and path of every request.
    requests: list[tuple[float, str]] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    def change(self, treat: Treat | None) -> float:
        """Treat requests so from now on (None: forward); the monotonic time of it."""
        self.treat = treat
        return time.monotonic()

    def count(self, since: float, until: float, call: str = "") -> int:
        """How many requests (of a call) came in this time."""
        return sum(since <= at < until and call in path for at, path in self.requests)

    def serve(self, client: socket.socket) -> None:
        """All requests of one connection, one after the other."""
        with contextlib.suppress(OSError, Gone), client:
            client.settimeout(60)
            while not self.over.is_set():
                request = whole_message(client)
                path = request.split(b" ", 2)[1].decode()
                self.requests.append((time.monotonic(), path))
                (self.treat or forwarded)(self, client, request)

    def answered(self, request: bytes) -> bytes:
        """What the controller says."""
        with socket.create_connection(self.upstream, 60) as way:
            way.sendall(request)
            return whole_message(way)

    def hold(self, seconds: float = 60.0) -> None:
        """Wait, but not beyond the next change or the end of the test."""
        treat, until = self.treat, time.monotonic() + seconds
        while self.treat is treat and time.monotonic() < until:
            if self.over.wait(0.02):
                raise Gone


def whole_message(source: socket.socket) -> bytes:
    """One HTTP message with its body; Gone at the end of the connection."""
    message = b""
    while b"\r\n\r\n" not in message:
        message += some(source)
    head, _, body = message.partition(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    while len(body) < sum(lengths):
        body += some(source)
    return head + b"\r\n\r\n" + body


def some(source: socket.socket) -> bytes:
    piece = source.recv(65536)
    if not piece:
        raise Gone
    return piece


# What becomes of requests.


def forwarded(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
    """The controller answers."""
    client.sendall(proxy.answered(request))


def resetting(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
    """RST instead of an answer."""
    reset(client)
    raise Gone


def closing(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
    """The end of the connection instead of an answer."""
    raise Gone


def losing(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
    """The controller hears everything, and its answer is lost."""
    with contextlib.suppress(Gone):
        proxy.answered(request)
    resetting(proxy, client, request)


def silent(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
    """Nothing comes back and nothing is closed: a partition."""
    proxy.hold()
    raise Gone


def dripping(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
    """A good answer, a byte every 0.2 s."""
    for byte in whole(200, b'{"acknowledged": true}'):
        client.sendall(bytes([byte]))
        proxy.hold(0.2)


def slow(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
    """A good answer after most of the time that it may take."""
    proxy.hold(0.6)
    forwarded(proxy, client, request)


def lossy(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
    """Every other request is lost, the rest is late."""
    if len(proxy.requests) % 2:
        losing(proxy, client, request)
    proxy.hold(0.2)
    forwarded(proxy, client, request)


def whole(status: int, body: bytes, *headers: str, kind: str = "json") -> bytes:
    """An HTTP answer as bytes."""
    lines = [
        f"HTTP/1.1 {status} Whatever",
        f"Content-Type: application/{kind}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def saying(answer: bytes, last: bool = False) -> Treat:
    """This answer to everything; `last` closes the connection after it."""

    def treat(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
        client.sendall(answer)
        if last:
            raise Gone

    return treat


def answering(status: int, *headers: str) -> Treat:
    """This status to everything."""
    return saying(whole(status, b'{"detail": "a fault"}', *headers))


@contextlib.contextmanager
def faulty_proxy(
    endpoint: str,
    port: int = 0,
    host: str = "127.0.0.1",
    kind: type[FaultyProxy] = FaultyProxy,
) -> Iterator[FaultyProxy]:
    """A proxy before a controller, on a free port or on this one."""
    place = urlsplit(endpoint)
    proxy = kind((place.hostname or "", place.port or 80), host=host)
    listener = socket.create_server((host, port))
    proxy.port = listener.getsockname()[1]
    thread = threading.Thread(target=accept, args=(proxy, listener), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        thread.join()
        listener.close()


def accept(proxy: FaultyProxy, listener: socket.socket) -> None:
    """A thread for each connection, until it is over."""
    while not proxy.over.is_set():
        if select.select([listener], [], [], 0.02)[0]:
            client, _ = listener.accept()
            threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()


def only(calls: tuple[str, ...], treat: Treat) -> Treat:
    """`treat` for these calls; the others are forwarded."""

    def chosen(proxy: FaultyProxy, client: socket.socket, request: bytes) -> None:
        path = request.split(b" ", 2)[1].decode().partition("?")[0]
        concerned = path.rpartition("/")[2] in calls
        (treat if concerned else forwarded)(proxy, client, request)

    return chosen
