"""Requests in a child: the answer and the error come through, and the child goes."""

from __future__ import annotations

import functools
import os
import selectors
import signal
import time
from collections.abc import Callable
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
from miglet.http.transport import DeadlinePassed, TlsFailed
from miglet.redaction import forget_secrets, redact
from miglet.workers.asking import TokenReply, asked, expired, registration_token_in
from tests.support import eventually

pytestmark = pytest.mark.integration


class Waiter:
    """What of the runner-watcher a request needs: a client, and to be woken up."""

    client: Any = SimpleNamespace(clock_offset_seconds=1.5)

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def listen(self, source: Any, heed: Callable[[], None]) -> None:
        self.selector.register(source, selectors.EVENT_READ, heed)

    def ignore(self, source: Any) -> None:
        self.selector.unregister(source)

    def wake(self) -> None:
        """The step goes on whenever `select` returns."""


TOKEN = RegistrationToken("AAATOKEN", 1e10, "https://github.com/octo", None, ("linux",))

ERRORS = [
    (Refused("no", 404, "not here"), Refused),
    (ControllerUnreachable("later", 30.0), ControllerUnreachable),
    (Unauthenticated("who are you"), Unauthenticated),
    (CredentialUnusable("no token file"), CredentialUnusable),
    (BadAnswer("not JSON"), ControllerUnreachable),
    (DeadlinePassed(5.0), ControllerUnreachable),
    (TlsFailed("unknown authority"), ControllerUnreachable),
]


@pytest.fixture(autouse=True)
def no_secrets():
    yield
    forget_secrets()


def answered(call: Any, seconds: float = 10.0) -> TokenReply:
    """What comes of a call, waited for as a worker does."""
    host: Any = Waiter()
    steps = asked(host, call, seconds)
    while True:
        try:
            host.selector.select(next(steps))
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
    reply = answered(lambda: token)
    assert reply.removal == {"token": "AAAREMOVE", "expires_at": None}


def test_a_controller_that_does_without_tokens_gives_none():
    reply = answered(lambda: None)
    assert reply.removal is None and reply.registration is None


@pytest.mark.parametrize("error, kind", ERRORS, ids=lambda each: repr(each)[:20])
def test_an_error_comes_through_as_far_as_callers_tell_errors_apart(error, kind):
    with pytest.raises(kind) as caught:
        answered(functools.partial(failing, error))
    assert type(caught.value) is kind
    assert str(caught.value) == str(error)
    for name in vars(caught.value):
        assert getattr(caught.value, name) == getattr(error, name, None)


def test_a_child_that_is_killed_is_a_controller_that_does_not_answer():
    with pytest.raises(ControllerUnreachable, match="failed or took too long"):
        answered(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_child_that_hangs_is_killed(tmp_path):
    call = functools.partial(hanging, tmp_path / "pid")
    began = time.monotonic()
    with pytest.raises(ControllerUnreachable, match="failed or took too long"):
        answered(call, seconds=-1.0)
    assert time.monotonic() - began < 5.0
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_reply_without_a_registration_token_is_no_token():
    with pytest.raises(ControllerUnreachable):
        registration_token_in(TokenReply())


def test_a_request_that_is_dropped_takes_its_child_along(tmp_path):
    path = tmp_path / "pid"
    host: Any = Waiter()
    steps = asked(host, functools.partial(hanging, path), 10.0)
    next(steps)
    pid = int(eventually(lambda: path.exists() and path.read_text()))
    steps.close()
    assert not psutil.pid_exists(pid)


def test_a_token_expires_by_the_controllers_clock():
    token = RegistrationToken("AAATOKEN", time.time() + 60, "https://x", None, ())
    assert not expired(token, None)
    assert not expired(token, 30.0)
    assert expired(token, 90.0)
