"""One request out, one whole answer back, over one connection that is kept alive.

Nothing but what the configuration says decides where a request goes: no proxy from
the environment, no ``~/.netrc``, no cookies, no redirects. The one rule: whatever
goes wrong here is a ControllerUnreachable, and leaves a transport that can be used.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from miglet.errors import BadAnswer, ControllerUnreachable
from miglet.http.tls import TlsAdapter, host_in, tls_for
from miglet.redaction import redact

#: The most that is read of an answer's body.
LONGEST_BODY_BYTES = 1024 * 1024

#: One address that does not answer may use up so much of the time allowed, so that
#: the next address of the same name gets its chance.
CONNECT_SHARE = 1 / 3

#: The most of a peer's words that an error repeats.
LONGEST_EXCERPT = 200


class TlsFailed(ControllerUnreachable):
    """The controller's certificate, or ours, was not accepted."""

    category = "infrastructure"
    hint = (
        "check the controller's certificate and host name, controller.auth.ca_path,"
        " the client certificate and this machine's clock"
    )


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer, whatever it says."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Transport:
    """The connection to the controller; opened by the first request."""

    def __init__(self, settings: Any, adapter: TlsAdapter | None = None) -> None:
        self._tls = tls_for(settings)
        self._proxies = {}
        #: The proxy's host, without user name and password; empty without one.
        self._via = ""
        if settings.proxy:
            self._proxies = {"http": settings.proxy, "https": settings.proxy}
            self._via = host_in(settings.proxy)
        self._adapter = adapter
        #: Whether a connection that already served an answer is there to be used.
        self._kept = False

    def send(self, request: requests.Request, seconds: float) -> Answer:
        """The answer to `request`; `seconds` bounds each silence, not the whole.

        When the peer closed a kept connection just before it was used again, the
        request goes out once more, on a new one: it cannot have been acted on but
        for an answer that was lost, and every call may be repeated by its id.
        """
        adapter, kept = self._current_adapter(), self._kept
        self._kept = False
        try:
            return self._exchange(adapter, request, seconds)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            if not (kept and closed_unanswered(error)):
                raise unreachable(error, self._via) from error
        self.close()
        return self.send(request, seconds)

    def close(self) -> None:
        """Drop the connection; the next request opens a new one."""
        if self._adapter is not None:
            self._adapter.close()
        self._adapter = None
        self._kept = False

    def _current_adapter(self) -> TlsAdapter:
        """The pool; a new one after the certificate's files changed."""
        context = self._tls.context() if self._tls else None
        if self._adapter is None or self._adapter.context is not context:
            self.close()
            self._adapter = TlsAdapter(context)
        return self._adapter

    def _exchange(
        self, adapter: TlsAdapter, request: requests.Request, seconds: float
    ) -> Answer:
        timeout = (seconds * CONNECT_SHARE, seconds)
        response = adapter.send(
            prepared(request), stream=True, timeout=timeout, proxies=self._proxies
        )
        with closing(response):
            body = whole_body(response)
        self._kept = "close" not in response.headers.get("Connection", "").lower()
        return Answer(response.status_code, response.headers, body)


def prepared(request: requests.Request) -> requests.PreparedRequest:
    """`request` as it is sent; `Request.prepare` but for cookies and credentials."""
    ready = requests.PreparedRequest()
    ready.prepare_method(request.method)
    ready.prepare_url(request.url, request.params)
    ready.prepare_headers(request.headers)
    ready.prepare_body(request.data or None, None)
    return ready


def whole_body(response: requests.Response) -> bytes:
    """The body as it was sent; raises BadAnswer if it is too long, cut or packed."""
    packed = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        raise BadAnswer(f"the answer is packed ({excerpt(packed)}), which we refuse")
    announced = announced_length(response.headers)
    if announced is not None and announced > LONGEST_BODY_BYTES:
        raise BadAnswer(f"the answer is longer than {LONGEST_BODY_BYTES} bytes")
    body = read_at_most(response, LONGEST_BODY_BYTES + 1)
    if len(body) > LONGEST_BODY_BYTES:
        raise BadAnswer(f"the answer is longer than {LONGEST_BODY_BYTES} bytes")
    if announced is not None and len(body) < announced:
        raise BadAnswer(f"the answer was cut: {len(body)} of {announced} bytes came")
    return body


def read_at_most(response: requests.Response, limit: int) -> bytes:
    """The first `limit` bytes of the body, or all of it if it is shorter."""
    body = bytearray()
    while len(body) < limit:
        piece = response.raw.read(limit - len(body), decode_content=False)
        if not piece:
            break
        body += piece
    return bytes(body)


def announced_length(headers: Mapping[str, str]) -> int | None:
    """``Content-Length``, where it counts (RFC 9112, 6.3) and is a number."""
    text = headers.get("Content-Length", "")
    if "Transfer-Encoding" in headers or not (text.isascii() and text.isdigit()):
        return None
    return int(text[:20])


def closed_unanswered(error: BaseException) -> bool:
    """Whether the peer had closed the connection before it began to answer."""
    aborted = next(iter(error.args), None)
    if not isinstance(aborted, urllib3.exceptions.ProtocolError):
        return False
    return isinstance(aborted.args[-1], (ConnectionResetError, BrokenPipeError))


def unreachable(error: BaseException, via: str = "") -> ControllerUnreachable:
    """Our error for one of requests, urllib3 or the operating system.

    `via` is the proxy's host: it is the one that a connection is made to.
    """
    cause = deepest(error)
    if isinstance(cause, (ssl.SSLError, requests.exceptions.SSLError)):
        return TlsFailed(f"TLS: {excerpt(tls_reason(cause))}")
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
        kind = type(cause).__name__
        return BadAnswer(f"the answer is not HTTP: {kind}: {excerpt(str(cause))}")
    peer = f" (proxy {via})" if via else ""
    if isinstance(cause, socket.gaierror):
        reason = f"name resolution failed{peer}: {cause.strerror}"
        return ControllerUnreachable(reason)
    if isinstance(cause, TimeoutError):
        return ControllerUnreachable(f"no answer in time{peer}")
    reason = getattr(cause, "strerror", None) or excerpt(str(cause))
    return ControllerUnreachable((reason or type(cause).__name__) + peer)


def deepest(error: BaseException) -> BaseException:
    """What the libraries wrapped: the exception that says what happened."""
    found, inner = error, error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, (OSError, http.client.HTTPException)):
            found = inner
        inner = inner.__cause__ or inner.__context__
    return found


def tls_reason(error: OSError) -> str:
    """OpenSSL's reason; for a certificate the sentence why it was not accepted."""
    sentence = getattr(error, "verify_message", None)
    if sentence:
        return f"the controller's certificate is not accepted: {sentence}"
    wrapped = next(iter(error.args), None)
    reason = getattr(error, "reason", None) or getattr(wrapped, "reason", None)
    return str(reason or error)


def excerpt(text: str, limit: int = LONGEST_EXCERPT) -> str:
    """The beginning of a peer's words, fit for a log: redacted, one line."""
    line = "".join(c if c.isprintable() else " " for c in redact(text[:16_384]))
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def phrase(status: int) -> str:
    known = {member.value: member.phrase for member in HTTPStatus}
    return known.get(status, "(unknown status)")


def host_of(location: str) -> str:
    """Where a redirect leads, without user name and password."""
    try:
        host = urlsplit(location).netloc.rpartition("@")[2]
    except ValueError:
        return "an unreadable address"
    return excerpt(host) or "another path"
