"""Checks of the network: names, connections and TLS, and the clock of the other side.

What cannot be reached is a warning, and is not waited for: MIGlet tries again itself.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from miglet.config.settings import Settings
from miglet.preflight.registry import Notable, brief_check

#: What the runner itself talks to.
GITHUB_HOSTS = ("github.com", "api.github.com")

#: Seconds that one connection may take, and that the boot waits for each check.
CONNECT_SECONDS = 2.0
NETWORK_SECONDS = 3.0

#: A clock that is further off breaks tokens (GitHub accepts five minutes).
CLOCK_SECONDS = 300.0

NOT_WANTED = "not asked for (bootstrap.network)"


@brief_check(NETWORK_SECONDS)
def controller_reachable(settings: Settings, deadline: float) -> str:
    """The controller's name resolves, and it can be connected to."""
    if not settings.bootstrap.network:
        return NOT_WANTED
    url = _first_hop(settings)
    return f"{_connect(url, settings, deadline)} {url.hostname}:{_port(url)}"


@brief_check(NETWORK_SECONDS)
def github_reachable(settings: Settings, deadline: float) -> str:
    """GitHub's hosts can be connected to; behind a proxy only the proxy is tried."""
    if not settings.bootstrap.network:
        return NOT_WANTED
    if settings.controller.proxy:
        return "behind a proxy"
    for host in GITHUB_HOSTS:
        _connect(urlsplit(f"https://{host}"), settings, deadline, own_trust=False)
    return ", ".join(GITHUB_HOSTS)


@brief_check(NETWORK_SECONDS)
def clock(settings: Settings, deadline: float) -> str:
    """Our clock and the controller's agree, so that tokens are valid."""
    if not settings.bootstrap.network:
        return NOT_WANTED
    told = _date(urlsplit(settings.controller.endpoint), settings, deadline)
    if told is None:
        return "the controller does not tell the time"
    offset = told - time.time()
    if abs(offset) > CLOCK_SECONDS:
        hint = "is the machine's clock synchronised? See timedatectl(1)"
        raise Notable(f"the controller's clock is {offset:+.0f} s from ours", hint)
    return f"{offset:+.0f} s"


def _first_hop(settings: Settings) -> SplitResult:
    return urlsplit(settings.controller.proxy or settings.controller.endpoint)


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _connect(
    url: SplitResult, settings: Settings, deadline: float, own_trust: bool = True
) -> str:
    """What protocol a connection came about with; raises Notable when none did."""
    host, port = url.hostname or "", _port(url)
    seconds = max(0.1, min(CONNECT_SECONDS, deadline - time.monotonic()))
    try:
        with socket.create_connection((host, port), seconds) as plain:
            if url.scheme != "https":
                return "TCP to"
            with _context(settings, own_trust).wrap_socket(
                plain, server_hostname=host
            ) as secure:
                return f"{secure.version()} to"
    except ssl.SSLCertVerificationError as error:
        hint = "see controller.auth.ca_path, the certificate's names and the clock"
        raise Notable(f"{host}:{port}: {error.verify_message}", hint) from None
    except socket.gaierror as error:
        raise Notable(f"{host}: {error.strerror}", "see resolv.conf(5)") from None
    except OSError as error:
        hint = "does a firewall or a route stand in the way?"
        raise Notable(f"{host}:{port}: {error}", hint) from None


def _context(settings: Settings, own_trust: bool) -> ssl.SSLContext:
    auth = settings.controller.auth
    context = ssl.create_default_context(cafile=auth.ca_path if own_trust else None)
    if own_trust and auth.type == "mtls":
        context.load_cert_chain(auth.certificate_path, auth.key_path)
    return context


def _date(url: SplitResult, settings: Settings, deadline: float) -> float | None:
    """The ``Date`` of any answer of the controller; None when there is none."""
    if settings.controller.proxy or not url.hostname:
        return None
    seconds = max(0.1, min(CONNECT_SECONDS, deadline - time.monotonic()))
    address = (url.hostname, _port(url))
    try:
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            context = _context(settings, own_trust=True)
            connection = http.client.HTTPSConnection(
                *address, timeout=seconds, context=context
            )
        else:
            connection = http.client.HTTPConnection(*address, timeout=seconds)
        try:
            connection.request("HEAD", url.path or "/")
            date = connection.getresponse().headers.get("Date")
        finally:
            connection.close()
        return parsedate_to_datetime(date).timestamp() if date else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
