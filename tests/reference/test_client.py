"""The command line's way to a controller: its JSON, or one clear failure."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from miglet.errors import MISCONFIGURED, REFUSED, UNAVAILABLE
from miglet.reference.client import (
    Access,
    CredentialsUnusable,
    NoAnswer,
    RequestRefused,
    connected,
    machine_path,
)

pytestmark = pytest.mark.integration


class Controller:
    """Answers every request with one status and body, and keeps the requests."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                known = self.command, self.path, dict(self.headers), body
                outer.requests.append(known)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def controller() -> Iterator[Controller]:
    made = Controller()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def get(access: Access, path: str = "vms", **query: str) -> Any:
    async def ask() -> Any:
        async with connected(access) as remote:
            return await remote.get(path, query)

    return asyncio.run(ask())


def post(access: Access, path: str, body: dict, key: str | None = None) -> Any:
    async def ask() -> Any:
        async with connected(access) as remote:
            return await remote.post(path, body, key)

    return asyncio.run(ask())


def test_an_answer_is_its_json(controller):
    controller.body = json.dumps({"vms": []}).encode()
    access = Access(controller.endpoint + "/")
    assert get(access, after="7") == {"vms": []}
    ((method, path, headers, _),) = controller.requests
    assert (method, path) == ("GET", "/api/v1/vms?after=7")
    assert "Authorization" not in headers


def test_a_body_is_sent_as_json_with_its_key(controller):
    post(Access(controller.endpoint), "vms/v/commands", {"type": "Drain"}, "k-1")
    ((method, path, headers, body),) = controller.requests
    assert (method, path) == ("POST", "/api/v1/vms/v/commands")
    assert headers["Idempotency-Key"] == "k-1"
    assert json.loads(body) == {"type": "Drain"}


def test_the_first_token_of_the_file_is_sent(controller, tmp_path: Path):
    (tmp_path / "tokens").write_text("first\nsecond\n")
    get(Access(controller.endpoint, token_file=tmp_path / "tokens"))
    assert controller.requests[0][2]["Authorization"] == "Bearer first"


@pytest.mark.parametrize("content", [None, b"", b" \n", "ä".encode()])
def test_a_token_file_that_cannot_be_used_is_named_before_anything_is_sent(
    controller, tmp_path: Path, content
):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialsUnusable) as caught:
        get(Access(controller.endpoint, token_file=path))
    assert caught.value.exit_status == MISCONFIGURED
    assert controller.requests == []


def test_certificates_that_cannot_be_used_are_named(controller, tmp_path: Path):
    with pytest.raises(CredentialsUnusable, match="certificates"):
        get(Access(controller.endpoint, certificate=tmp_path / "none", key=tmp_path))


@pytest.mark.parametrize(
    "body, words",
    [
        (b'{"detail": "no such machine"}', r"no such machine \(HTTP 404\)"),
        (b"[]", r"refused \(HTTP 404\)"),
    ],
)
def test_a_refusal_says_why(controller, body, words):
    controller.status, controller.body = 404, body
    with pytest.raises(RequestRefused, match=words) as caught:
        get(Access(controller.endpoint))
    assert caught.value.exit_status == REFUSED


@pytest.mark.parametrize("status", [200, 502])
def test_what_is_not_json_is_no_answer(controller, status):
    controller.status, controller.body = status, b"<html>"
    with pytest.raises(NoAnswer, match="no usable answer from http://127.0.0.1"):
        get(Access(controller.endpoint))


def test_a_redirect_is_not_followed(controller):
    controller.status = 302
    controller.headers = {"Location": f"{controller.endpoint}/elsewhere"}
    with pytest.raises(RequestRefused, match="HTTP 302"):
        get(Access(controller.endpoint))
    assert len(controller.requests) == 1


def test_a_controller_that_is_not_there_is_no_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NoAnswer) as caught:
        get(Access(f"http://127.0.0.1:{port}"))
    assert caught.value.exit_status == UNAVAILABLE


def test_a_machines_name_cannot_leave_its_place_in_the_path():
    assert machine_path("a/../b", "events") == "vms/a%2F..%2Fb/events"
