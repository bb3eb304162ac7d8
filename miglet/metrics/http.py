"""A very small HTTP server for the worker's own loop: no thread, no blocking call.

Its descriptor is an epoll that holds all its sockets, so the loop watches one thing. A
client gets one answer and so many seconds; when there are too many, the oldest goes:
neither a slow client nor a hundred of them can hold up the worker or shut others out.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

log = logging.getLogger(__name__)

#: A request may have so many bytes, and a client so many seconds for all of it.
REQUEST_BYTES = 8 * 1024
CLIENT_SECONDS = 5.0

#: Clients at a time; one more, and the oldest is sent away.
CLIENTS = 64

TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a page says."""

    status: int
    body: bytes
    content_type: str = TEXT

    @classmethod
    def of_text(cls, status: int, line: str) -> Answer:
        """One line of text."""
        return cls(status, line.encode("utf-8", "replace") + b"\n")


#: Gives the answer for a path; takes the request's Accept header.
Route = Callable[[str], Answer]


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9469``, ``[::1]:9469`` or ``localhost:9469``.

    Raises ValueError that says what is wrong.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is not an address and a port, e.g. 127.0.0.1:9469")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r}: the port is a number from 0 to 65535")
    return (host[1:-1] if bracketed else host), int(port)


class Endpoint:
    """Listens on (host, port) and answers GET and HEAD of `routes`.

    Raises OSError when it cannot listen. The loop calls `serve` when the descriptor is
    readable, and `expire` about once a second.
    """

    def __init__(
        self,
        host: str,
        port: int,
        routes: Mapping[str, Route],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._clock = clock
        self._clients: dict[socket.socket, _Client] = {}
        self._listener = _listening(host, port)
        #: Where it listens; the port is the real one when 0 was asked for.
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._epoll = selectors.EpollSelector()
        self._accepts = False
        self._resume()

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._epoll.fileno()

    def serve(self) -> None:
        """Do what can be done now."""
        for key, _ in self._epoll.select(0):
            client = self._clients.get(key.fileobj)  # type: ignore[call-overload]
            if key.fileobj is self._listener:
                self._accept()
            elif client is not None:
                self._attend(client)

    def expire(self, now: float) -> None:
        """Send away whose time is over; accept again if that was impossible."""
        for client in [each for each in self._clients.values() if each.due <= now]:
            self._drop(client)
        self._resume()

    def close(self) -> None:
        """Close every socket."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._listener.close()
        self._epoll.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            self._pause(error)
            return
        while len(self._clients) >= CLIENTS:
            self._drop(next(iter(self._clients.values())))
        connection.setblocking(False)
        client = _Client(connection, self._clock() + CLIENT_SECONDS)
        self._clients[connection] = client
        self._epoll.register(connection, selectors.EVENT_READ)

    def _pause(self, error: OSError) -> None:
        # No descriptor left: to go on listening would be to spin.
        log.warning("no more connections for now: %s", error)
        self._epoll.unregister(self._listener)
        self._accepts = False

    def _resume(self) -> None:
        if not self._accepts:
            self._epoll.register(self._listener, selectors.EVENT_READ)
            self._accepts = True

    def _attend(self, client: _Client) -> None:
        try:
            if client.goes_on(self._routes):
                self._epoll.modify(client.connection, client.awaits)
                return
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("a client has gone: %s", error)
        self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.connection]
        self._epoll.unregister(client.connection)
        client.connection.close()


class _Client:
    """A connection: its request so far, then what is left of its answer."""

    def __init__(self, connection: socket.socket, due: float) -> None:
        self.connection = connection
        self.due = due
        #: What the endpoint is to wait for.
        self.awaits = selectors.EVENT_READ
        self._request = b""
        self._left = b""
        self._answered = False

    def goes_on(self, routes: Mapping[str, Route]) -> bool:
        """Read or write what is possible; False when the connection is over."""
        if self._left:
            return self._write()
        received = self.connection.recv(REQUEST_BYTES)
        if not received:
            return False
        if not self._answered:  # else it is read only so that no reset eats the answer
            self._read(received, routes)
        return True

    def _read(self, received: bytes, routes: Mapping[str, Route]) -> None:
        self._request += received
        head, end, _ = self._request.partition(b"\r\n\r\n")
        if end:
            self._left = answered(head, routes)
        elif len(self._request) > REQUEST_BYTES:
            self._left = _response(Answer.of_text(431, "the request is too large"))
        self._answered = bool(self._left)
        if self._answered:
            self._request = b""
            self.awaits = selectors.EVENT_WRITE

    def _write(self) -> bool:
        self._left = self._left[self.connection.send(self._left) :]
        if not self._left:
            self.connection.shutdown(socket.SHUT_WR)
            self.awaits = selectors.EVENT_READ
        return True


def answered(head: bytes, routes: Mapping[str, Route]) -> bytes:
    """The whole response to a request's head."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _response(Answer.of_text(400, "this is no HTTP/1 request"))
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        return _response(Answer.of_text(405, "only GET and HEAD"), "Allow: GET, HEAD")
    route = routes.get(target.partition("?")[0])
    if route is None:
        return _response(Answer.of_text(404, "try " + ", ".join(sorted(routes))))
    response = _response(route(_accept_of(lines[1:])))
    return (
        response
        if method == "GET"
        else response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    )


def _accept_of(lines: list[str]) -> str:
    fields = (line.partition(":") for line in lines)
    return next((value for name, _, value in fields if name.lower() == "accept"), "")


def _response(answer: Answer, *fields: str) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *fields,
    )
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + answer.body


def _listening(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(family, kind, protocol))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        listener.setblocking(False)
        undo.pop_all()
        return listener
