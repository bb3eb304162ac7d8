"""A controller that misbehaves on request, for what the real one never does.

It speaks the API just well enough for a machine to boot, and keeps every request with
its time of arrival.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What an answer is: a status, headers and a body; or None to close without one.
Reply = tuple[int, dict[str, str], bytes] | None

#: Decides about a request before the stub does: (call, body) → Reply or "go on".
Script = Callable[[str, Any], Any]

GO_ON = "go on"


def answer(body: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (
        status,
        {"Content-Type": "application/json", **named},
        json.dumps(body).encode(),
    )


@dataclass
class Request:
    """One request as it arrived."""

    at: float
    call: str
    body: Any
    headers: dict[str, str]
    query: str = ""


@dataclass
class Stub:
    """The stub's memory, and what the test tells it."""

    script: Script = lambda call, body: GO_ON
    commands: list[Any] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The journalled events that were acknowledged or not, as they came."""
        found = [each.body for each in self.requests if each.call == "events"]
        return [
            event
            for event in found
            if event["sequence"] and kind in (None, event["type"])
        ]

    def calls(self, call: str) -> list[Request]:
        return [each for each in self.requests if each.call == call]

    def reply(self, call: str, body: Any) -> Reply:
        """The stub's own answer."""
        action = self.script(call, body)
        if action != GO_ON:
            return action
        if call == "registration-token":
            return answer(
                {
                    "registration_token": "ASTUBREGISTRATIONTOKEN",
                    "expires_at": "2099-01-01T00:00:00Z",
                    "runner_url": "https://github.com/octo",
                    "runner_group": "default",
                    "labels": ["self-hosted"],
                }
            )
        if call == "removal-token":
            return answer({"title": "no such thing"}, 404)
        if call == "commands":
            given, self.commands = self.commands, []
            return answer({"commands": given or None})
        return answer({"acknowledged": True})


class Handler(BaseHTTPRequestHandler):
    """Keeps the request, sends what the stub replies."""

    protocol_version = "HTTP/1.1"
    stub: Stub

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        path, _, query = self.path.partition("?")
        call = path.rsplit("/", 1)[1]
        headers = dict(self.headers.items())
        request = Request(time.monotonic(), call, body, headers, query)
        self.stub.requests.append(request)
        reply = self.stub.reply(call, body)
        if reply is None:
            reset(self.connection)
            self.close_connection = True
            return
        status, headers, content = reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)

    do_GET = do_POST

    def log_message(self, *arguments: object) -> None:
        """Nothing: the requests are kept."""


def reset(connection: socket.socket) -> None:
    """Have the kernel answer with RST."""
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


class Server(ThreadingHTTPServer):
    """Dies with the test, whatever its threads are doing."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, *arguments: object) -> None:
        """A client that left is no news."""


@contextlib.contextmanager
def stub_controller(port: int = 0, **options: Any) -> Iterator[Stub]:
    """A running stub."""
    stub = Stub(**options)
    handler = type("OwnHandler", (Handler,), {"stub": stub})
    with Server(("127.0.0.1", port), handler) as server:
        stub.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
