"""Who may call: the bearer of a token, or the holder of a client certificate.

Where both are set up, either opens the door. Agents and operators are not told apart.
"""

from __future__ import annotations

from aiohttp import web

from miglet.reference.problems import Answer, Problem
from miglet.reference.tokens import TokenFile


class Door:
    """Lets requests in, or answers 401 before anything else is looked at."""

    def __init__(self, tokens: TokenFile | None, anonymous: bool = False) -> None:
        self._tokens = tokens
        self._anonymous = anonymous

    def opens_to(self, request: web.Request) -> bool:
        """Whether the request's token or certificate is one of ours."""
        return self._anonymous or _certified(request) or self._bears_token(request)

    @web.middleware
    async def admit(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        """The door as aiohttp wants it: a middleware."""
        if self.opens_to(request):
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


def _certified(request: web.Request) -> bool:
    """Whether TLS verified a client certificate (it does so against --client-ca)."""
    transport = request.transport
    return transport is not None and bool(transport.get_extra_info("peercert"))
