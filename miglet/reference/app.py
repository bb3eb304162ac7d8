"""The controller as an aiohttp application: the door, then the calls.

Requests are logged at debug only: method, path, status and time, never a header or a
body, so no secret can get into a log.
"""

from __future__ import annotations

import logging
import time

from aiohttp import web

from miglet.reference.api import AgentApi
from miglet.reference.auth import Door
from miglet.reference.bodies import MOST_BODY_BYTES
from miglet.reference.fleet import Controller
from miglet.reference.operator_api import OperatorApi
from miglet.reference.problems import Answer, tell_problems

log = logging.getLogger(__name__)


def application(controller: Controller, door: Door) -> web.Application:
    """All paths of the contract behind `door`."""
    app = web.Application(
        middlewares=[log_request, tell_problems, door.admit],
        client_max_size=MOST_BODY_BYTES,
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
