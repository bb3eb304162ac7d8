"""Requests in a child: the answer and the error come through, and the child goes."""

from __future__ import annotations

import functools
import os
import select
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from miglet.controller.answers import RegistrationToken, RemovalToken
from miglet.errors import (
    BadAnswer,
    ControllerError,
    ControllerUnreachable,
    CredentialUnusable,
    Refused,
    Unauthenticated,
)
from miglet.http.deadline import DeadlinePassed
from miglet.http.transport import TlsFailed
from miglet.redaction import forget_secrets, redact
from miglet.workers.asking import Told, asked, expired, registration_token_in
from tests.support import eventually

pytestmark = pytest.mark.integration

#: What of a client is asked for here; the call itself is any function.
CLIENT: Any = SimpleNamespace(clock_offset_seconds=1.5)

TOKEN = RegistrationToken("AAATOKEN", 1e10, "https://github.com/octo", None, ("linux",))

ERRORS = [
    Refused("no", 404, "not here"),
    ControllerUnreachable("later", 30.0),
    BadAnswer("not JSON"),
    Unauthenticated("who are you"),
    CredentialUnusable("no token file"),
    DeadlinePassed(5.0),
    TlsFailed("unknown authority"),
]


@pytest.fixture(autouse=True)
def no_secrets():
    yield
    forget_secrets()


def answered(call: Any, seconds: float = 10.0) -> Told:
    """What comes of a call, waited for as a worker does."""
    steps = asked(CLIENT, call, seconds)
    while True:
        try:
            select.select([], [], [], next(steps))
        except StopIteration as end:
            return end.value


def failing(error: ControllerError) -> None:
    raise error


def hanging(path: Path) -> None:
    """Say who it is, and never come back."""
    path.write_text(str(os.getpid()))
    signal.pause()


def test_a_token_comes_through_and_is_masked_from_then_on():
    told = answered(lambda: TOKEN)
    assert registration_token_in(told) == TOKEN
    assert told.clock_offset_seconds == 1.5
    assert "AAATOKEN" not in repr(told)
    assert "AAATOKEN" not in redact("the token AAATOKEN")


def test_a_removal_token_comes_through():
    token = RemovalToken("AAAREMOVE", None)
    assert answered(lambda: token).token == {"token": "AAAREMOVE", "expires_at": None}


def test_a_controller_that_does_without_tokens_gives_none():
    assert answered(lambda: None).token is None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_through_as_what_it_was(error):
    with pytest.raises(type(error)) as caught:
        answered(functools.partial(failing, error))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)


def test_a_child_that_is_killed_is_a_controller_that_does_not_answer():
    with pytest.raises(ControllerUnreachable, match="has failed"):
        answered(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_child_that_hangs_is_killed(tmp_path):
    call = functools.partial(hanging, tmp_path / "pid")
    with pytest.raises(ControllerUnreachable, match="come to an end"):
        answered(call, seconds=-1.0)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_request_that_is_dropped_takes_its_child_along(tmp_path):
    path = tmp_path / "pid"
    steps = asked(CLIENT, functools.partial(hanging, path), 10.0)
    next(steps)
    pid = int(eventually(lambda: path.exists() and path.read_text()))
    steps.close()
    assert not psutil.pid_exists(pid)


def test_a_token_expires_by_the_controllers_clock():
    token = RegistrationToken("AAATOKEN", time.time() + 60, "https://x", None, ())
    assert not expired(token, None)
    assert not expired(token, 30.0)
    assert expired(token, 90.0)
