"""A metadata server: asked straight, within limits, and never believed too easily.

No proxy, no ``~/.netrc``, no cookies, no redirects, at most 1 MiB: that is the
controller's transport. The one rule: no call here takes longer than its deadline,
and what goes wrong is a MetadataUnavailable.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, TypeVar

import requests

from miglet import __version__
from miglet.errors import ControllerUnreachable
from miglet.formats import strict_json
from miglet.http.retry import retry_after
from miglet.http.transport import Answer, Transport, host_of, phrase, within
from miglet.metadata.attempts import (
    LATER,
    Limits,
    MetadataForbidden,
    MetadataRefused,
    MetadataUnavailable,
)

Result = TypeVar("Result")


class Server:
    """The metadata server at a base address, with the headers that it insists on."""

    def __init__(self, base: str, headers: Mapping[str, str], limits: Limits) -> None:
        self.base = base.rstrip("/") + "/"
        self.limits = limits
        self._headers = {
            "User-Agent": f"miglet/{__version__}",
            "Accept-Encoding": "identity",
            **headers,
        }
        auth = SimpleNamespace(type="none", ca_path=None)
        self._transport = Transport(
            SimpleNamespace(endpoint=self.base, proxy=None, auth=auth)
        )

    @property
    def host(self) -> str:
        """Whom we speak to, for messages."""
        authority = self.base.partition("://")[2].partition("/")[0]
        return authority.rpartition("@")[2]

    def ask(
        self,
        path: str,
        deadline: float,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> Answer:
        """The answer to one try, whatever it says; raises MetadataUnavailable."""
        request = requests.Request(
            method,
            self.base + path.lstrip("/"),
            params=dict(params or {}),
            headers={**self._headers, **(headers or {})},
        )
        left = deadline - time.monotonic()
        if left <= 0:
            raise MetadataUnavailable(f"{self.host}: the time for metadata is used up")
        return self._answer(request, min(left, self.limits.attempt_seconds))

    def _answer(self, request: requests.Request, seconds: float) -> Answer:
        try:
            return within(seconds, lambda: self._transport.send(request, seconds))
        except ControllerUnreachable as error:
            self.close()
            raise MetadataUnavailable(f"{self.host}: {error}") from error

    def persistently(self, attempt: Callable[[], Result], deadline: float) -> Result:
        """What `attempt` returns, tried again while that may help and time allows."""
        failures = 0
        while True:
            try:
                return attempt()
            except MetadataUnavailable as error:
                failures += 1
                pause = max(self.limits.pause(failures), error.retry_after or 0.0)
                late = time.monotonic() + pause >= deadline
                if not error.transient or failures >= self.limits.tries or late:
                    raise
            select.select([], [], [], pause)

    def close(self) -> None:
        """Drop the connection; the next request opens a new one."""
        self._transport.close()

    def judged(self, answer: Answer, path: str) -> bytes | None:
        """The body; None for 404. Raises MetadataUnavailable for anything else."""
        if answer.status == HTTPStatus.OK:
            return answer.body
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        raise self.error_for(answer, path)

    def error_for(self, answer: Answer, path: str) -> MetadataUnavailable:
        """The error that an answer other than 200 and 404 is."""
        status = answer.status
        failure = f"{self.host}: /{path}: {status} {phrase(status)}"
        if status // 100 == 3:
            to = host_of(answer.headers.get("Location", ""))
            return MetadataRefused(f"{failure}: redirect to {to} not followed")
        if status in LATER or status >= 500:
            headers = answer.headers
            asked = retry_after(headers.get("Retry-After"), headers.get("Date"))
            return MetadataUnavailable(failure, asked)
        if status == HTTPStatus.FORBIDDEN:
            return MetadataForbidden(failure)
        return MetadataRefused(failure)

    def required(self, found: Result | None, path: str) -> Result:
        """`found`, which every server of this cloud has; raises MetadataRefused."""
        if found is None:
            raise MetadataRefused(
                f"{self.host}: /{path}: 404, which this cloud always has: something"
                " else answers at this address"
            )
        return found

    def tree(self, body: bytes, path: str) -> dict[str, Any]:
        """The JSON object in `body`; raises MetadataRefused naming `path`."""
        try:
            tree = strict_json(body)
        except ValueError:
            tree = None
        if not isinstance(tree, dict):
            found = "an HTML page" if is_html(body) else "something else"
            reason = f"expected a JSON object, found {found}"
            raise MetadataRefused(f"{self.host}: /{path}: {reason}")
        return tree


def is_html(body: bytes) -> bool:
    """Whether a page for people came instead of an answer."""
    beginning = body[:64].lstrip().lower()
    return beginning.startswith((b"<!doctype html", b"<html"))
