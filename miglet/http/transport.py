"""One request out, one whole answer back, over one connection that is kept alive.

Nothing but what the configuration says decides where a request goes: no proxy from
the environment, no ``~/.netrc``, no cookies, no redirects. The one rule: whatever
goes wrong here is a ControllerUnreachable, and leaves a transport that can be used.
"""

from __future__ import annotations

import gc
import http.client
import signal
import socket
import ssl
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from miglet.errors import BadAnswer, ControllerUnreachable
from miglet.http.tls import host_in, tls_for
from miglet.redaction import redact

#: The most that is read of an answer's body.
LONGEST_BODY_BYTES = 1024 * 1024

#: One address that does not answer may use up so much of the time allowed, so that
#: the next address of the same name gets its chance.
CONNECT_SHARE = 1 / 3

#: The most of a peer's words that an error repeats.
LONGEST_EXCERPT = 200

#: The alarm rings again after so many seconds: an exception that is raised while
#: a finaliser (``__del__``) runs is swallowed by the interpreter.
AGAIN = 0.05

#: The shortest limit; setitimer(2) takes 0 for "never".
SHORTEST = 0.001

Result = TypeVar("Result")


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


class FinalResponse(http.client.HTTPResponse):
    """Skips every interim answer (1xx, RFC 9110, 15.2); http.client skips only 100."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        interim = 100 <= status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS
        return version, HTTPStatus.CONTINUE if interim else status, reason


class PlainConnection(HTTPConnection):
    """A connection without TLS."""

    response_class = FinalResponse


class SecureConnection(HTTPSConnection):
    """A connection with TLS."""

    response_class = FinalResponse


class PlainPool(HTTPConnectionPool):
    """The pool of such connections."""

    ConnectionCls = PlainConnection


class SecurePool(HTTPSConnectionPool):
    """The pool of such connections."""

    ConnectionCls = SecureConnection


POOLS = {"http": PlainPool, "https": SecurePool}


class TlsAdapter(HTTPAdapter):
    """requests' pool of connections, all of them made with one TLS context.

    It keeps one connection alive and tries nothing a second time.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None,
        pools: Mapping[str, type[HTTPConnectionPool]] = POOLS,
    ) -> None:
        self.context = context
        self.pools = pools
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **more: Any
    ) -> None:
        more["ssl_context"] = self.context
        super().init_poolmanager(connections, maxsize, block, **more)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        more["ssl_context"] = self.context
        manager = super().proxy_manager_for(proxy, **more)
        manager.pool_classes_by_scheme = self.pools
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the verification to the context.

        requests would load its own bundle of authorities into it, and Debian's urllib3
        the system's, which it names by default.
        """
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = conn.ca_cert_dir = None

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """What of a Response is read here; the rest, cookies above all, is not made.

        With `prepared` it leaves each worker that makes requests 0.2 MB smaller.
        """
        response = requests.Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.raw, response.request = resp, req
        return response

    def close(self) -> None:
        """Close the kept connection now, not when its pool happens to be collected."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                manager.pools[key].close()
        super().close()


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
        return TlsFailed(f"TLS handshake failed: {excerpt(tls_reason(cause))}")
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
    text = str(reason or error)
    if text == "WRONG_VERSION_NUMBER":
        return "does this port speak TLS? A plain one needs http://"
    return text.replace("_", " ").lower() if text.isupper() else text


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


# A limit on the whole of a call, which a socket's timeout is not: that one starts anew
# with every byte, so that a peer which sends one byte a second holds a caller for ever.
# Only the main thread of a process may use this, and nothing else there may use SIGALRM
# while a call runs.


class DeadlinePassed(ControllerUnreachable):
    """The call took longer than it may; what it had begun is void."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no complete answer within {seconds:g} s")


class _Rang(BaseException):
    """The alarm, on its way from the signal to `within`.

    Not an Exception: a library must not take it for a fault of its own and go on.
    """


class _Alarm:
    """SIGALRM after some seconds, and everything put back as it was before."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(seconds, SHORTEST)
        #: Before the call has begun and after it has ended, a signal is ignored.
        self.armed = False

    def set(self) -> None:
        """Take over SIGALRM; a timer that was running is kept for later."""
        self.began = time.monotonic()
        self.handler = signal.signal(signal.SIGALRM, self.ring)
        self.timer = signal.setitimer(signal.ITIMER_REAL, self.seconds, AGAIN)

    def ring(self, _number: int, frame: FrameType | None) -> None:
        """Cut the call short; in a finalizer, the next ring does."""
        if self.armed and not is_lost_in(frame):
            raise _Rang

    def restore(self) -> None:
        """Give SIGALRM back; a timer that came due meanwhile rings at once."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.handler or signal.SIG_DFL)
        left, interval = self.timer
        if left:
            left -= time.monotonic() - self.began
            signal.setitimer(signal.ITIMER_REAL, max(left, SHORTEST), interval)


def is_lost_in(frame: FrameType | None) -> bool:
    """Whether an exception that is raised there is printed and not propagated.

    The interpreter itself calls finalizers and the callbacks of a collection. Callbacks
    of weak references other than those of `finalize` are not recognised; they take
    microseconds.
    """
    callbacks = [getattr(each, "__code__", None) for each in gc.callbacks]
    callbacks.append(weakref.finalize.__call__.__code__)
    while frame:
        if frame.f_code.co_name == "__del__" or frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False


def _drop(rang: _Rang) -> None:
    """Let go of what the call had begun, sockets above all, where it was cut short.

    No library expects an exception between any two instructions. Without this they
    would be open until the exception is forgotten, or until the next collection. An
    exception that was being handled when the alarm rang, and the cause of each, hold
    frames of their own.
    """
    errors: list[BaseException] = [rang]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nobody closes them: we do
        for error in errors:  # grows
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
            for other in (error.__context__, error.__cause__):
                if other is not None and other not in errors:
                    errors.append(other)


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """What `call()` returns; raises DeadlinePassed when it takes too long.

    Resolving a name is the one thing that this cannot cut short, since the C
    library does not return to Python before it has an answer (resolv.conf(5)).
    """
    alarm = _Alarm(seconds)
    alarm.set()
    # A function and two nested `try`, not a context manager: the alarm may ring
    # between the last instruction of the call and the first of its clean-up.
    try:
        try:
            alarm.armed = True
            return call()
        finally:
            alarm.armed = False
    except _Rang as rang:
        _drop(rang)
        raise DeadlinePassed(seconds) from None
    finally:
        alarm.armed = False
        alarm.restore()
