"""A proxy before the controller that lets the test make the weather on the way there.

It takes whole requests, so the weather holds from the next request on, whatever
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
Treat = Callable[["Weather", socket.socket, bytes], None]


class Gone(Exception):
    """The connection is of no further use."""


@dataclass
class Weather:
    """The proxy. It is fair until the test says otherwise."""

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
        """The weather from now on, None for fair; the monotonic time of the change."""
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
                (self.treat or fair)(self, client, request)

    def answered(self, request: bytes) -> bytes:
        """What the controller says."""
        with socket.create_connection(self.upstream, 60) as way:
            way.sendall(request)
            return whole_message(way)

    def hold(self, seconds: float = 60.0) -> None:
        """Wait, but not beyond the end of this weather or of the test."""
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


# The weathers.


def fair(weather: Weather, client: socket.socket, request: bytes) -> None:
    """The controller answers."""
    client.sendall(weather.answered(request))


def resetting(weather: Weather, client: socket.socket, request: bytes) -> None:
    """RST instead of an answer."""
    reset(client)
    raise Gone


def closing(weather: Weather, client: socket.socket, request: bytes) -> None:
    """The end of the connection instead of an answer."""
    raise Gone


def losing(weather: Weather, client: socket.socket, request: bytes) -> None:
    """The controller hears everything, and its answer is lost."""
    with contextlib.suppress(Gone):
        weather.answered(request)
    resetting(weather, client, request)


def silent(weather: Weather, client: socket.socket, request: bytes) -> None:
    """Nothing comes back and nothing is closed: a partition."""
    weather.hold()
    raise Gone


def dripping(weather: Weather, client: socket.socket, request: bytes) -> None:
    """A good answer, a byte every 0.2 s."""
    for byte in whole(200, b'{"acknowledged": true}'):
        client.sendall(bytes([byte]))
        weather.hold(0.2)


def slow(weather: Weather, client: socket.socket, request: bytes) -> None:
    """A good answer after most of the time that it may take."""
    weather.hold(0.6)
    fair(weather, client, request)


def lossy(weather: Weather, client: socket.socket, request: bytes) -> None:
    """Every other request is lost, the rest is late."""
    if len(weather.requests) % 2:
        losing(weather, client, request)
    weather.hold(0.2)
    fair(weather, client, request)


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

    def treat(weather: Weather, client: socket.socket, request: bytes) -> None:
        client.sendall(answer)
        if last:
            raise Gone

    return treat


def answering(status: int, *headers: str) -> Treat:
    """This status to everything."""
    return saying(whole(status, b'{"detail": "the weather"}', *headers))


@contextlib.contextmanager
def weather_before(
    endpoint: str,
    port: int = 0,
    host: str = "127.0.0.1",
    kind: type[Weather] = Weather,
) -> Iterator[Weather]:
    """A proxy before a controller, on a free port or on this one."""
    place = urlsplit(endpoint)
    weather = kind((place.hostname or "", place.port or 80), host=host)
    listener = socket.create_server((host, port))
    weather.port = listener.getsockname()[1]
    thread = threading.Thread(target=accept, args=(weather, listener), daemon=True)
    thread.start()
    try:
        yield weather
    finally:
        weather.over.set()
        thread.join()
        listener.close()


def accept(weather: Weather, listener: socket.socket) -> None:
    """A thread for each connection, until it is over."""
    while not weather.over.is_set():
        if select.select([listener], [], [], 0.02)[0]:
            client, _ = listener.accept()
            threading.Thread(target=weather.serve, args=(client,), daemon=True).start()


def only(calls: tuple[str, ...], treat: Treat) -> Treat:
    """This weather for these calls, and fair weather for the others."""

    def chosen(weather: Weather, client: socket.socket, request: bytes) -> None:
        path = request.split(b" ", 2)[1].decode().partition("?")[0]
        concerned = path.rpartition("/")[2] in calls
        (treat if concerned else fair)(weather, client, request)

    return chosen
