"""Checks of the network: names, connections and TLS, and the clock of the other side.

What cannot be reached is a warning, and is not waited for: MIGlet tries again itself.
"""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import SplitResult, urlsplit

from miglet.bootstrap.credentials import client_context
from miglet.bootstrap.framework import CheckWarning, brief_check
from miglet.bootstrap.probe import Head, Place, ask, connect
from miglet.config.settings import Settings
from miglet.formats import parse_http_date

#: Seconds that the boot waits for each check.
NETWORK_SECONDS = 3.0

#: A clock that is further off breaks tokens (GitHub accepts five minutes).
CLOCK_SECONDS = 300.0

NOT_WANTED = "not asked for (bootstrap.network)"
PROXIED = "not tried: the proxy stands in between"


@brief_check(NETWORK_SECONDS, network=True)
def controller_reachable(settings: Settings, deadline: float) -> str:
    """The controller's name resolves, and it, or the proxy, can be connected to."""
    if not settings.bootstrap.network:
        return NOT_WANTED
    proxy = settings.controller.proxy
    place = controller_place(urlsplit(proxy or settings.controller.endpoint), settings)
    with connect(place, deadline) as connection:
        return f"{protocol_of(connection)} to {'the proxy ' if proxy else ''}{place}"


@brief_check(NETWORK_SECONDS, network=True)
def github_reachable(settings: Settings, deadline: float) -> str:
    """GitHub can be connected to; a proxy is the runner's business, too."""
    return reach_github("github.com", settings, deadline)


@brief_check(NETWORK_SECONDS, network=True)
def github_api_reachable(settings: Settings, deadline: float) -> str:
    """GitHub's API can be connected to, which the runner registers with."""
    return reach_github("api.github.com", settings, deadline)


@brief_check(NETWORK_SECONDS, network=True)
def clock(settings: Settings, deadline: float) -> str:
    """Our clock and the controller's agree, so that tokens are valid."""
    if not settings.bootstrap.network:
        return NOT_WANTED
    if settings.controller.proxy:
        return PROXIED
    try:
        date = parse_http_date(head_of(settings, deadline).headers.get("date"))
    except (OSError, CheckWarning):
        return "not known: the controller does not answer"
    if date is None:
        return "the controller does not tell the time"
    offset = date - time.time()
    if abs(offset) > CLOCK_SECONDS:
        hint = "is the machine's clock synchronised? See timedatectl(1)"
        raise CheckWarning(f"the controller's clock is {offset:+.0f} s from ours", hint)
    return f"{offset:+.0f} s from ours to the controller's"


def reach_github(host: str, settings: Settings, deadline: float) -> str:
    """Connect to one of GitHub's hosts, trusting whom the system trusts."""
    if not settings.bootstrap.network:
        return NOT_WANTED
    if settings.runner.proxy:
        return PROXIED
    hint = "if a firewall decrypts: put its authority among the system's certificates"
    place = Place(host, 443, ssl.create_default_context(), hint)
    with connect(place, deadline) as connection:
        return f"{protocol_of(connection)} to {place}"


def controller_place(url: SplitResult, settings: Settings) -> Place:
    """Where the controller or its proxy is, and how it proves to be that."""
    if url.scheme.lower() != "https":
        return Place(url.hostname or "", url.port or 80, None)
    context = client_context(settings.controller.auth)
    hint = "name the authority that signed it in controller.auth.ca_path"
    return Place(url.hostname or "", url.port or 443, context, hint)


def protocol_of(connection: socket.socket) -> str:
    """The protocol of a connection."""
    if isinstance(connection, ssl.SSLSocket):
        return connection.version() or "TLS"
    return "TCP"


def head_of(settings: Settings, deadline: float) -> Head:
    """The head of any answer of the controller; raises OSError or CheckWarning."""
    url = urlsplit(settings.controller.endpoint)
    place = controller_place(url, settings)
    with connect(place, deadline) as connection:
        return ask(connection, f"HEAD {url.path or '/'}", place.host, deadline)
