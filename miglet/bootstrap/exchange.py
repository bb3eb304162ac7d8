"""One question and one answer over a connection that is open, as in HTTP/1.0.

Only the head of the answer is read, and no more of it than LIMIT_BYTES; everything
ends at the deadline. It saves the start the import of an HTTP library.
"""

from __future__ import annotations

import socket
import time
from typing import NamedTuple

from miglet import __version__

LIMIT_BYTES = 16 << 10


class Answer(NamedTuple):
    """The head of an answer; the status is 0 when it was not HTTP."""

    status: int
    line: str
    headers: dict[str, str]


def ask(connection: socket.socket, request: str, host: str, deadline: float) -> Answer:
    """Send `request`, such as ``GET /_ping``, and read the head of the answer.

    Raises OSError; TimeoutError at the monotonic `deadline`.
    """
    lines = (
        f"{request} HTTP/1.0",
        f"Host: {host}",
        f"User-Agent: miglet/{__version__}",
    )
    connection.settimeout(left(deadline))
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
    head = b""
    while b"\r\n\r\n" not in head and len(head) < LIMIT_BYTES:
        connection.settimeout(left(deadline))
        received = connection.recv(4096)
        if not received:
            break
        head += received
    return parsed(head.partition(b"\r\n\r\n")[0].decode("latin-1"))


def left(deadline: float) -> float:
    """Seconds until the deadline; raises TimeoutError when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def parsed(head: str) -> Answer:
    """The head of an answer, whatever it is; names of headers in small letters."""
    line, *rest = head.split("\r\n")
    words = line.split(" ")
    known = words[0].startswith("HTTP/") and len(words) > 1 and words[1].isdecimal()
    fields = (each.partition(":") for each in rest)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    return Answer(int(words[1][:3]) if known else 0, line, headers)
