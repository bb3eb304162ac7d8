"""Opening a connection, and saying exactly why it could not be opened.

A name is resolved first, then each address is tried; nothing outlasts the deadline
but the resolver itself, which takes no limit.
"""

from __future__ import annotations

import importlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from miglet import __version__
from miglet.bootstrap.framework import CheckWarning

#: Seconds that one address is tried before the next.
ADDRESS_SECONDS = 2.0

CLOCK_HINT = "is this machine's clock right? See timedatectl(1)"

#: What to do about a certificate that was refused, by a part of OpenSSL's message.
REFUSALS = {
    "expired": f"renew the certificate; or {CLOCK_HINT}",
    "not yet valid": CLOCK_HINT,
    "mismatch": "use a name that the certificate was issued for, or issue a new one",
}


class Place(NamedTuple):
    """Where to connect to, and how it is known to be the right one."""

    host: str
    port: int
    #: None: not encrypted.
    context: ssl.SSLContext | None
    #: What to do when nobody we trust has signed its certificate.
    hint: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def connect(
    place: Place,
    deadline: float,
    resolve: Callable[..., list[Any]] = socket.getaddrinfo,
) -> socket.socket:
    """Open a connection, encrypted if the place says so; raises CheckWarning."""
    try:
        found = resolve(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "is the name right? Else see resolv.conf(5)"
        raise CheckWarning(f"{place.host} cannot be resolved: {reason}", hint) from None
    failures = []
    for *_, (address, port, *_) in found:
        try:
            limit = min(ADDRESS_SECONDS, left(deadline))
            plain = socket.create_connection((address, port), limit)
        except OSError as error:
            reason = error.strerror or str(error)
            failures.append(reason if address == place.host else f"{address} {reason}")
        else:
            return encrypt(plain, place, deadline) if place.context else plain
    hint = "does a firewall or a route stand in the way, or is it not running?"
    raise CheckWarning(f"{place}: {', '.join(failures)}", hint)


def encrypt(plain: socket.socket, place: Place, deadline: float) -> socket.socket:
    """Start TLS on `plain`; raises CheckWarning with the reason of a failure."""
    assert place.context
    try:
        plain.settimeout(left(deadline))
        return place.context.wrap_socket(plain, server_hostname=place.host)
    except ssl.SSLCertVerificationError as error:
        failure = f"certificate refused: {error.verify_message}"
        hints = (hint for part, hint in REFUSALS.items() if part in failure)
        hint = next(hints, place.hint)
    except OSError as error:  # also ssl.SSLError
        reason = getattr(error, "reason", None) or error.strerror or error
        failure = f"TLS handshake failed: {str(reason).replace('_', ' ').lower()}"
        hint = "does this port speak TLS 1.2 or later? A plain one needs http://"
    plain.close()
    raise CheckWarning(f"{place}: {failure}", hint)


def left(deadline: float) -> float:
    """Seconds until the deadline; raises TimeoutError when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


class Head(NamedTuple):
    """The head of an answer; the status is 0 when it was not HTTP."""

    status: int
    #: The reason phrase; what came instead when it was not HTTP.
    text: str
    #: By their names in small letters.
    headers: dict[str, str]


def ask(connection: socket.socket, request: str, host: str, deadline: float) -> Head:
    """Send `request`, such as ``GET /_ping``, and read the head of the answer.

    Raises OSError; TimeoutError when nothing comes until the monotonic `deadline`. A
    server that sends a byte now and then is for the check's own limit.
    """
    method, path = request.split(" ", 1)
    # Not with the module: the checks that send no request need not wait for it.
    http_client = importlib.import_module("http.client")
    client = http_client.HTTPConnection(host)
    client.sock = connection
    connection.settimeout(left(deadline))
    headers = {"User-Agent": f"miglet/{__version__}", "Connection": "close"}
    try:
        client.request(method, path, headers=headers)
        answer = client.getresponse()
    except http_client.HTTPException as error:
        return Head(0, str(error), {})
    found = {name.lower(): value for name, value in answer.getheaders()}
    return Head(answer.status, f"{answer.status} {answer.reason}", found)
