"""Opening a connection, and saying exactly why it could not be opened.

A name is resolved first, then each address is tried; nothing outlasts the deadline
but the resolver itself, which takes no limit.

The few lines of HTTP here replace `http.client` on purpose: its import costs each start
10 ms or more, and its timeout holds for each read, not for an answer as a whole.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from miglet import __version__
from miglet.bootstrap.framework import CheckWarning

#: Seconds that one address is tried before the next.
ADDRESS_SECONDS = 2.0

#: As `socket.getaddrinfo`, which it is outside of tests.
Resolver = Callable[..., list[Any]]

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


def connected(
    place: Place, deadline: float, resolve: Resolver = socket.getaddrinfo
) -> socket.socket:
    """An open connection, encrypted if the place says so; raises CheckWarning."""
    plain = tcp(place, deadline, resolve)
    if place.context is None:
        return plain
    try:
        plain.settimeout(left(deadline))
        return place.context.wrap_socket(plain, server_hostname=place.host)
    except OSError as error:  # also ssl.SSLError
        plain.close()
        raise tls_failure(place, error) from None


def tcp(place: Place, deadline: float, resolve: Resolver) -> socket.socket:
    """A connection to the first of the host's addresses that takes it."""
    failures = []
    for address in addresses(place, resolve):
        try:
            return socket.create_connection(
                address, min(ADDRESS_SECONDS, left(deadline))
            )
        except OSError as error:
            reason_text = error.strerror or str(error)
            failures.append(
                reason_text
                if address[0] == place.host
                else f"{address[0]} {reason_text}"
            )
    hint = "does a firewall or a route stand in the way, or is it not running?"
    raise CheckWarning(f"{place}: {', '.join(failures)}", hint)


def addresses(place: Place, resolve: Resolver) -> list[tuple[str, int]]:
    """Where the host is; raises CheckWarning when its name is not known."""
    try:
        found = resolve(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason_text = getattr(error, "strerror", None) or str(error)
        hint = "is the name right? Else see resolv.conf(5)"
        raise CheckWarning(
            f"{place.host} cannot be resolved: {reason_text}", hint
        ) from None
    return [each[4][:2] for each in found]


def tls_failure(place: Place, error: OSError) -> CheckWarning:
    """What went wrong after the connection was there."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason_text = error.verify_message
        hints = (hint for part, hint in REFUSALS.items() if part in reason_text)
        return CheckWarning(
            f"{place}: certificate refused: {reason_text}", next(hints, place.hint)
        )
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    reason_text = str(reason).replace("_", " ").lower()
    hint = "does this port speak TLS 1.2 or later? A plain one needs http://"
    return CheckWarning(f"{place}: TLS handshake failed: {reason_text}", hint)


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
