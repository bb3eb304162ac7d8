"""A running controller as the command line sees it: one session, clear failures."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from miglet.errors import MISCONFIGURED, REFUSED, UNAVAILABLE, MigletError

#: How long any answer may take beyond the time that it was asked to be held.
TIMEOUT_SECONDS = 10.0


class NoAnswer(MigletError):
    """The controller did not answer, or not as one."""

    exit_status = UNAVAILABLE


class RequestRefused(MigletError):
    """The controller said no."""

    exit_status = REFUSED


class CredentialsUnusable(MigletError):
    """The token or a certificate file cannot be read."""

    exit_status = MISCONFIGURED


@dataclass(frozen=True)
class Access:
    """How to reach a controller, and as whom; paths that are None are not used."""

    endpoint: str
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Remote:
    """Asks a controller and returns its JSON, or raises what is wrong."""

    def __init__(self, session: aiohttp.ClientSession, access: Access) -> None:
        self._session = session
        self._access = access

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """GET below /api/v1; `query` may ask to be held for ``wait`` seconds."""
        return await self._call("GET", path, query or {}, None)

    async def post(
        self, path: str, body: Mapping[str, Any], idempotency_key: str | None = None
    ) -> Any:
        """POST below /api/v1."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        return await self._call("POST", path, {}, body, headers)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        url = f"{self._access.endpoint.rstrip('/')}/api/v1/{path}"
        total = float(query.get("wait", 0)) + TIMEOUT_SECONDS
        timeout = aiohttp.ClientTimeout(total=total)
        try:
            async with self._session.request(
                method,
                url,
                params=query,
                json=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                return _result(response.status, await response.read())
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise NoAnswer(f"no usable answer from {url}: {reason}") from error


@asynccontextmanager
async def connected(access: Access) -> AsyncIterator[Remote]:
    """A session with the controller at `access`."""
    connector = aiohttp.TCPConnector(ssl=_tls(access))
    async with aiohttp.ClientSession(
        connector=connector, headers=_headers(access)
    ) as session:
        yield Remote(session, access)


def machine_path(vm_id: str, *parts: str) -> str:
    """Path of a machine, or of something of it, below /api/v1."""
    return "/".join(["vms", *(quote(part, safe="") for part in (vm_id, *parts))])


def _result(status: int, body: bytes) -> Any:
    answer = json.loads(body)
    if status < 300:
        return answer
    detail = answer.get("detail") if isinstance(answer, dict) else None
    raise RequestRefused(f"{detail or 'refused'} (HTTP {status})")


def _headers(access: Access) -> dict[str, str]:
    if access.token_file is None:
        return {}
    try:
        tokens = access.token_file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsUnusable(f"cannot read the token: {error}") from error
    if not tokens:
        raise CredentialsUnusable(f"{access.token_file} has no token")
    return {"Authorization": f"Bearer {tokens[0]}"}


def _tls(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca)
        if access.certificate:
            context.load_cert_chain(access.certificate, access.key)
    except OSError as error:
        raise CredentialsUnusable(f"cannot use the certificates: {error}") from error
    return context
