"""Opening a connection, and saying exactly why it could not be opened.

A name is resolved first, then each address is tried; nothing outlasts the deadline
but the resolver itself, which takes no limit.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from miglet.bootstrap.exchange import left
from miglet.bootstrap.framework import Notable

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
    """An open connection, encrypted if the place says so; raises Notable."""
    plain = tcp(place, deadline, resolve)
    if place.context is None:
        return plain
    try:
        plain.settimeout(left(deadline))
        return place.context.wrap_socket(plain, server_hostname=place.host)
    except OSError as error:  # also ssl.SSLError
        plain.close()
        raise tls_trouble(place, error) from None


def tcp(place: Place, deadline: float, resolve: Resolver) -> socket.socket:
    """A connection to the first of the host's addresses that takes it."""
    troubles = []
    for address in addresses(place, resolve):
        try:
            return socket.create_connection(
                address, min(ADDRESS_SECONDS, left(deadline))
            )
        except OSError as error:
            told = error.strerror or str(error)
            troubles.append(
                told if address[0] == place.host else f"{address[0]} {told}"
            )
    hint = "does a firewall or a route stand in the way, or is it not running?"
    raise Notable(f"{place}: {', '.join(troubles)}", hint)


def addresses(place: Place, resolve: Resolver) -> list[tuple[str, int]]:
    """Where the host is; raises Notable when its name is not known."""
    try:
        found = resolve(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or str(error)
        hint = "is the name right? Else see resolv.conf(5)"
        raise Notable(f"{place.host} cannot be resolved: {told}", hint) from None
    return [each[4][:2] for each in found]


def tls_trouble(place: Place, error: OSError) -> Notable:
    """What went wrong after the connection was there."""
    if isinstance(error, ssl.SSLCertVerificationError):
        told = error.verify_message
        hints = (hint for part, hint in REFUSALS.items() if part in told)
        return Notable(f"{place}: certificate refused: {told}", next(hints, place.hint))
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    told = str(reason).replace("_", " ").lower()
    hint = "does this port speak TLS 1.2 or later? A plain one needs http://"
    return Notable(f"{place}: no encryption came about: {told}", hint)
