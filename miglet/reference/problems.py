"""Every refusal of the reference controller, as problem JSON (RFC 9457).

Whatever is refused is raised as a `Problem`; one middleware turns it, and what the
framework or the database refuses, into an answer. No other code makes 4xx or 5xx.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

from aiohttp import web

from miglet.errors import MigletError

log = logging.getLogger(__name__)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: How long a client is asked to wait when the database is full, locked or broken.
RETRY_AFTER_SECONDS = 5


class Problem(MigletError):
    """A request that is refused, with the status and the reason for this very one."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors
        self.headers = headers or {}

    def answer(self) -> web.Response:
        """The refusal as it goes over the wire."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self),
        }
        if self.errors:
            body["errors"] = list(self.errors)
        return web.Response(
            status=self.status,
            text=json.dumps(body),
            content_type="application/problem+json",
            headers=self.headers,
        )


@web.middleware
async def answer_problems(request: web.Request, handler: Answer) -> web.StreamResponse:
    """The outermost middleware: nothing leaves but answers and problem JSON."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.answer()
    except web.HTTPException as refusal:
        return _of_framework(request, refusal).answer()
    except sqlite3.Error as error:
        log.error("the database cannot be used: %s", error)
        wait = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return Problem(503, f"nothing was stored: {error}", headers=wait).answer()


def _of_framework(request: web.Request, refusal: web.HTTPException) -> Problem:
    """What aiohttp refuses by itself: unknown paths, wrong methods, huge bodies."""
    details = {
        404: f"there is nothing at {request.path}",
        405: f"{request.method} is not allowed at {request.path}",
        413: refusal.text or refusal.reason,
    }
    headers = {
        name: refusal.headers[name] for name in ("Allow",) if name in refusal.headers
    }
    detail = details.get(refusal.status, refusal.reason)
    return Problem(refusal.status, detail, headers=headers)
