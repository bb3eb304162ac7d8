"""What the three fakes share: a threaded server, a log of requests, and mischief.

A subclass answers in `respond`; it never sees a request that a failure has answered.
"""

from __future__ import annotations

import math
import select
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

HTML = b"<!DOCTYPE html>\n<html><title>Welcome to Hotel WiFi</title></html>\n"


@dataclass(frozen=True)
class Asked:
    """A request, as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: HTTPMessage = field(repr=False)


@dataclass(frozen=True)
class Reply:
    """An answer, as it goes out."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


#: Answers in the place of the fake; None lets the connection end without an answer.
Mischief = Callable[["Fake", Asked], "Reply | None"]


@dataclass
class Failure:
    """Something that goes wrong with the next `times` requests that fit."""

    mischief: Mischief
    times: float
    part: str

    def fits(self, asked: Asked) -> bool:
        """Whether this request is one of them; counts."""
        if self.times <= 0 or self.part not in asked.path:
            return False
        self.times -= 1
        return True


class Fake:
    """One metadata service, running until it is closed."""

    #: The variables that point a client at the fake, `{host}` and `{base}` filled in.
    variables: ClassVar[Mapping[str, str]] = {}
    #: What every genuine answer carries.
    marks: ClassVar[Mapping[str, str]] = {}

    def __init__(self, port: int = 0) -> None:
        #: Every request so far, also those that a failure answered.
        self.asked: list[Asked] = []
        self.changed = threading.Condition()
        self._failures: list[Failure] = []
        self._closing, self._closer = socket.socketpair()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler_of(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def base(self) -> str:
        """The URL of the root."""
        return f"http://{self.host}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use this fake."""
        return {
            name: text.format(host=self.host, base=self.base)
            for name, text in self.variables.items()
        }

    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [each.path for each in self.asked]

    def respond(self, asked: Asked) -> Reply:
        """The genuine answer."""
        raise NotImplementedError

    def describe(self, attributes: Mapping[str, str]) -> None:
        """Give the machine attributes, or whatever its cloud calls them."""
        raise NotImplementedError

    def fail(
        self, mischief: Mischief | int, times: float = math.inf, part: str = ""
    ) -> None:
        """Let the next requests go wrong whose path contains `part`.

        A number is answered as a status; the functions below do worse.
        """
        chosen = status(mischief) if isinstance(mischief, int) else mischief
        self._failures.append(Failure(chosen, times, part))

    def recover(self) -> None:
        """Let nothing fail any more."""
        self._failures.clear()

    def answer(self, asked: Asked) -> Reply | None:
        """What goes out for a request."""
        self.asked.append(asked)
        for failure in self._failures:
            if failure.fits(asked):
                return failure.mischief(self, asked)
        reply = self.respond(asked)
        return Reply(reply.status, reply.body, {**self.marks, **reply.headers})

    def pause(self, seconds: float) -> bool:
        """Wait, or until the fake is closed; whether it is."""
        return bool(select.select([self._closing], [], [], seconds)[0])

    def close(self) -> None:
        """End every answer that is under way, and the server."""
        self._closer.send(b"x")
        with self.changed:
            self.changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._closing.close()
        self._closer.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.pause(0)

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def status(code: int, **headers: str) -> Mischief:
    """Answer so, with `Retry_After="5"` for a header."""
    spelt = {name.replace("_", "-"): text for name, text in headers.items()}

    def answer(fake: Fake, asked: Asked) -> Reply:
        return Reply(code, b"", {**fake.marks, **spelt})

    return answer


def hang(fake: Fake, asked: Asked) -> None:
    """Say nothing until the fake is closed."""
    fake.pause(60)


def dropped(fake: Fake, asked: Asked) -> None:
    """Close the connection without an answer."""


def redirected(fake: Fake, asked: Asked) -> Reply:
    """Send the client somewhere else."""
    return Reply(302, HTML, {"Location": "http://portal.example/login?next=secret"})


def page(fake: Fake, asked: Asked) -> Reply:
    """A page for people, as a captive portal has it."""
    return Reply(200, HTML, {"Content-Type": "text/html"})


def genuine_page(fake: Fake, asked: Asked) -> Reply:
    """A page for people that carries the marks of the cloud."""
    return Reply(200, HTML, {**fake.marks, "Content-Type": "text/html"})


def unmarked(fake: Fake, asked: Asked) -> Reply:
    """The right answer without the marks of the cloud."""
    reply = fake.respond(asked)
    pairs = reply.headers.items()
    kept = {name: text for name, text in pairs if "token" not in name.lower()}
    return Reply(reply.status, reply.body, {**kept, "Metadata-Flavor": "Vanilla"})


def huge(fake: Fake, asked: Asked) -> Reply:
    """More than anybody should read."""
    return Reply(200, b"[" + b"0," * 1_000_000 + b"0]", fake.marks)


def handler_of(fake: Fake) -> type[BaseHTTPRequestHandler]:
    """The class that the server makes of each connection."""

    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        #: An idle kept-alive connection must not keep the fake from closing.
        timeout = 5

        def serve(self) -> None:
            parts = urlsplit(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            asked = Asked(self.command, unquote(parts.path), query, self.headers)
            reply = fake.answer(asked)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, text in reply.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(reply.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(reply.body)
            self.close_connection = True

        do_GET = do_PUT = do_POST = serve  # noqa: N815

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            """Requests are in `asked`."""

    return Connection
