"""``make audit``: what is known against what is installed, or that it is unknown."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.integration

Service = Callable[[dict[str, Any]], tuple[int, bytes]]


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The address of a vulnerability service that answers questions like this."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            status, body = service(json.loads(self.rfile.read(length)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/querybatch"
        finally:
            server.shutdown()
            thread.join()


def audit(url: str) -> tuple[int, str]:
    """The exit status of the audit, and what it says."""
    command = [sys.executable, ROOT / ".ci" / "audit", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, done.stdout


def answering(known: dict[str, list[str]]) -> Service:
    """A service that knows these vulnerabilities by the name of the package."""

    def answer(question: dict[str, Any]) -> tuple[int, bytes]:
        results: list[Any] = []
        for query in question["queries"]:
            assert query["package"]["ecosystem"] == "PyPI" and query["version"]
            ids = known.get(query["package"]["name"], [])
            results.append({"vulns": [{"id": each} for each in ids]} if ids else {})
        return 200, json.dumps({"results": results}).encode()

    return answer


def test_where_nothing_is_known_it_ends_with_0():
    with served(answering({})) as url:
        status, said = audit(url)
    assert status == 0, said
    assert said.endswith("0 with known vulnerabilities\n")


def test_each_known_vulnerability_is_named_with_its_package():
    with served(answering({"requests": ["GHSA-1", "PYSEC-2"]})) as url:
        status, said = audit(url)
    assert status == 1
    first, second, _ = said.splitlines()
    assert first.startswith("requests ") and first.endswith("/GHSA-1")
    assert second.startswith("requests ") and second.endswith("/PYSEC-2")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b""),
        (200, b"<html>Please log in</html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"results": []}'),
        (200, b'{"results": [5]}'),
        (200, b'{"results": [{"vulns": [{}]}]}'),
    ],
)
def test_an_answer_that_is_none_is_no_good_answer(status, body):
    with served(lambda _: (status, body)) as url:
        ended, said = audit(url)
    assert ended == 69, said
    assert said.startswith("audit: NOT CHECKED: http://127.0.0.1:")


def test_a_service_that_cannot_be_reached_is_no_good_answer():
    with served(answering({})) as url:
        pass
    status, said = audit(url)
    assert status == 69
    assert "cannot be reached: [Errno 111] Connection refused" in said
