"""The controller's process: it listens, says where, and ends in order on a signal.

An orderly end answers the long polls that are waiting, closes the database and is
over within five seconds, whatever clients do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sqlite3
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from miglet.errors import MISCONFIGURED, UNAVAILABLE, MigletError
from miglet.formats import rfc3339
from miglet.reference.api import MAX_BODY_BYTES, AgentApi, OperatorApi
from miglet.reference.fleet import (
    MINIMUM_SILENCE_SECONDS,
    Controller,
    Notifier,
    TokenSource,
    controller_on,
)
from miglet.reference.problems import Answer, Problem, answer_problems
from miglet.reference.store import LEASE_SECONDS, open_database
from miglet.reference.tokens import TokenFile


class Authenticator:
    """Lets requests in, or answers 401 before anything else is looked at."""

    def __init__(self, tokens: TokenFile | None, anonymous: bool = False) -> None:
        self._tokens = tokens
        self._anonymous = anonymous

    def accepts_request(self, request: web.Request) -> bool:
        """Whether the request's token or certificate is one of ours."""
        return (
            self._anonymous or _has_certificate(request) or self._bears_token(request)
        )

    @web.middleware
    async def authenticate(
        self, request: web.Request, handler: Answer
    ) -> web.StreamResponse:
        """Answer 401 to a request that is not accepted; an aiohttp middleware."""
        if self.accepts_request(request):
            return await handler(request)
        raise Problem(
            401,
            "neither a known bearer token nor a client certificate",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _bears_token(self, request: web.Request) -> bool:
        scheme, _, offered = request.headers.get("Authorization", "").partition(" ")
        if self._tokens is None or scheme.lower() != "bearer":
            return False
        return self._tokens.accepts(offered.strip())


def _has_certificate(request: web.Request) -> bool:
    """Whether TLS verified a client certificate (it does so against --client-ca)."""
    transport = request.transport
    return transport is not None and bool(transport.get_extra_info("peercert"))


#: How long requests get to finish when the controller ends.
END_SECONDS = 5.0


class CannotServe(MigletError):
    """The address, the database or a file is not usable."""

    exit_status = UNAVAILABLE


class ConflictingOptions(MigletError):
    """The options make no sense together."""

    exit_status = MISCONFIGURED


@dataclass(frozen=True)
class Options:
    """How to serve; paths that are None are not used."""

    host: str
    port: int
    database: Path
    token_file: Path | None = None
    anonymous: bool = False
    registration_token_file: Path | None = None
    removal_token_file: Path | None = None
    runner_url: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    heartbeat_interval_seconds: float = 15.0
    minimum_silence_seconds: float = MINIMUM_SILENCE_SECONDS
    lease_seconds: float = LEASE_SECONDS


class _Site(NamedTuple):
    """The application and where it is to be found."""

    runner: web.AppRunner
    host: str
    port: int
    tls: ssl.SSLContext | None


class JsonLines(logging.Formatter):
    """Log lines as JSON objects, one a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback becomes a field of it."""
        line = {
            "timestamp": rfc3339(record.created),
            "level": record.levelname.lower(),
            "component": "controller",
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr(level: str) -> None:
    """Log from `level` (debug, info, warning, error) on, as JSON lines on stderr."""
    stream = logging.StreamHandler()
    stream.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[stream])


def serve(options: Options, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; a MigletError says why it cannot.

    `announce` gets one line with the address as soon as requests are accepted.
    """
    _check(options)
    authenticator, tls = _authenticator(options), _tls(options)
    try:
        db = open_database(options.database)
    except sqlite3.Error as error:
        raise CannotServe(f"cannot use {options.database}: {error}") from error
    with contextlib.closing(db):
        controller = controller_on(
            db,
            _token_source(options),
            options.heartbeat_interval_seconds,
            options.lease_seconds,
            options.minimum_silence_seconds,
        )
        runner = web.AppRunner(application(controller, authenticator), access_log=None)
        site = _Site(runner, options.host, options.port, tls)
        asyncio.run(_serve(site, controller.notifier, announce))


async def _serve(
    site: _Site, notifier: Notifier, announce: Callable[[str], None]
) -> None:
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)
    await site.runner.setup()
    try:
        announce(f"listening on {await _listen(site)}")
        await stop_requested.wait()
    finally:
        notifier.close()
        await _end(site.runner)


async def _listen(site: _Site) -> str:
    """Take requests from now on; the address under which they come."""
    tcp = web.TCPSite(site.runner, site.host, site.port, ssl_context=site.tls)
    try:
        await tcp.start()
    except OSError as error:
        where = f"{site.host}:{site.port}"
        raise CannotServe(f"cannot listen on {where}: {error}") from error
    host = f"[{site.host}]" if ":" in site.host else site.host
    scheme = "https" if site.tls else "http"
    return f"{scheme}://{host}:{site.runner.addresses[0][1]}"


async def _end(runner: web.AppRunner) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(runner.cleanup(), END_SECONDS)


def _check(options: Options) -> None:
    if not (options.token_file or options.client_ca or options.anonymous):
        raise ConflictingOptions(
            "nobody could call: give --token-file, --client-ca or --anonymous"
        )
    if options.client_ca and not options.tls_certificate:
        raise ConflictingOptions("--client-ca is of no use without --tls-cert")
    if options.registration_token_file and not options.runner_url:
        raise ConflictingOptions("--registration-token-file needs --runner-url")


def _authenticator(options: Options) -> Authenticator:
    tokens = TokenFile(options.token_file) if options.token_file else None
    if tokens and not tokens.tokens():
        raise CannotServe(f"{options.token_file} has no token (one a line)")
    return Authenticator(tokens, options.anonymous)


def _token_source(options: Options) -> TokenSource:
    registration, removal = options.registration_token_file, options.removal_token_file
    return TokenSource(
        options.runner_url,
        TokenFile(registration) if registration else None,
        TokenFile(removal) if removal else None,
    )


def _tls(options: Options) -> ssl.SSLContext | None:
    """TLS 1.2 or later; a client certificate is asked for where --client-ca is set."""
    if options.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_certificate, options.tls_key)
        if options.client_ca:
            context.load_verify_locations(options.client_ca)
            context.verify_mode = _verification(options)
    except OSError as error:
        raise CannotServe(f"cannot use the certificates: {error}") from error
    return context


def _verification(options: Options) -> ssl.VerifyMode:
    """Where a token or nothing at all will do as well, a certificate need not come."""
    other_ways = options.token_file or options.anonymous
    return ssl.CERT_OPTIONAL if other_ways else ssl.CERT_REQUIRED


log = logging.getLogger(__name__)


def application(
    controller: Controller, authenticator: Authenticator
) -> web.Application:
    """All paths of the contract behind `authenticator`."""
    app = web.Application(
        middlewares=[log_request, answer_problems, authenticator.authenticate],
        client_max_size=MAX_BODY_BYTES,
    )
    app.add_routes(AgentApi(controller).routes())
    app.add_routes(OperatorApi(controller).routes())
    return app


@web.middleware
async def log_request(request: web.Request, handler: Answer) -> web.StreamResponse:
    """One line a request, at debug."""
    began = time.monotonic()
    response = await handler(request)
    milliseconds = (time.monotonic() - began) * 1000
    line = "%s %s %d in %.1f ms"
    log.debug(line, request.method, request.path, response.status, milliseconds)
    return response
