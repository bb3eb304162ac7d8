"""Refusals of the reference controller as problem JSON."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from miglet.reference.problems import RETRY_AFTER_SECONDS, Problem, answer_problems


def answered(error: Exception) -> web.StreamResponse:
    """The response to a GET of /x whose handler raises `error`."""

    async def handler(request: web.Request) -> web.StreamResponse:
        raise error

    async def respond() -> web.StreamResponse:
        return await answer_problems(make_mocked_request("GET", "/x"), handler)

    return asyncio.run(respond())


def body(response: web.StreamResponse) -> dict:
    assert isinstance(response, web.Response) and response.text is not None
    assert response.content_type == "application/problem+json"
    return json.loads(response.text)


def test_a_problem_has_its_status_reason_and_errors():
    errors = [{"pointer": "/id", "detail": "missing"}]
    response = answered(Problem(403, "no event", errors, {"X-Thing": "1"}))
    assert response.status == 403 and response.headers["X-Thing"] == "1"
    assert body(response) == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "no event",
        "errors": errors,
    }


@pytest.mark.parametrize(
    ("refusal", "status", "detail"),
    [
        (web.HTTPNotFound(), 404, "there is nothing at /x"),
        (web.HTTPMethodNotAllowed("GET", ["POST"]), 405, "GET is not allowed at /x"),
        (web.HTTPBadRequest(reason="odd"), 400, "odd"),
    ],
)
def test_what_the_framework_refuses_is_a_problem_as_well(refusal, status, detail):
    response = answered(refusal)
    assert response.status == status and body(response)["detail"] == detail
    if status == 405:
        assert response.headers["Allow"] == "POST"


def test_a_database_that_fails_asks_the_client_to_come_back():
    response = answered(sqlite3.OperationalError("disk is full"))
    assert response.status == 503
    assert response.headers["Retry-After"] == str(RETRY_AFTER_SECONDS)
    assert "disk is full" in body(response)["detail"]
