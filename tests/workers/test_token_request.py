"""Requests in a child: the answer and the error come through, and the child goes."""

from __future__ import annotations

import functools
import json
import mmap
import os
import selectors
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from miglet.controller.answers import RegistrationToken, RemovalToken
from miglet.errors import (
    BadAnswer,
    BadMessage,
    BadRegistration,
    ControllerError,
    ControllerUnreachable,
    CredentialUnusable,
    Refused,
    Unauthenticated,
)
from miglet.http.transport import DeadlinePassed, TlsFailed
from miglet.messages.codec import decode
from miglet.messages.facts import ControllerAnswered, FaultNoted
from miglet.redaction import forget_secrets, redact
from miglet.workers import token_request
from miglet.workers.steps import GivenUp
from miglet.workers.token_request import (
    TOKEN_CHARACTERS,
    RegistrationTokens,
    TokenReply,
    expired,
    registration_token_in,
    request_token,
)
from tests.sample_settings import sample_settings
from tests.support import eventually
from tests.workers.fakes import IDENTITY, FakeClient

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
    (BadRegistration("label 'a,b' cannot be used"), BadRegistration),
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
    steps = request_token(host, call, seconds)
    while True:
        try:
            host.selector.select(next(steps))
        except StopIteration as end:
            return end.value


def failing(error: ControllerError) -> None:
    raise error


def hanging(shared: mmap.mmap) -> None:
    """A call that is never answered; its process writes its id to shared memory."""
    shared[:] = struct.pack("q", os.getpid())
    signal.pause()


def test_a_token_comes_through_and_is_masked_from_then_on():
    fact = answered(lambda: TOKEN)
    assert registration_token_in(fact) == TOKEN
    assert fact.clock_offset_seconds == 1.5
    assert "AAATOKEN" not in repr(fact)
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


def test_a_child_that_hangs_is_killed():
    shared = mmap.mmap(-1, struct.calcsize("q"))
    call = functools.partial(hanging, shared)
    began = time.monotonic()
    with pytest.raises(ControllerUnreachable, match="failed or took too long"):
        answered(call, seconds=-1.0)
    assert time.monotonic() - began < 5.0
    (pid,) = struct.unpack("q", shared)
    assert pid and not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    "forged",
    [
        {"token": "two words"},
        {"token": "a\0b"},
        {"token": ""},
        {"token": "x" * (TOKEN_CHARACTERS + 1)},
        {"runner_url": "https://" + "x" * 5000},
        {"labels": ["x" * 5000]},
        {"labels": [{"not": "text"}]},
        {"user": "root"},
    ],
    ids=repr,
)
def test_a_reply_that_config_sh_could_not_be_given_is_refused(forged):
    fields = {**asdict(TOKEN), "labels": [], **forged}
    with pytest.raises(BadMessage):
        decode(json.dumps(["TokenReply", {"registration": fields}]).encode())


def test_a_reply_without_a_registration_token_is_no_token():
    with pytest.raises(ControllerUnreachable):
        registration_token_in(TokenReply())


def test_a_request_that_is_dropped_takes_its_child_along():
    shared = mmap.mmap(-1, struct.calcsize("q"))
    host: Any = Waiter()
    steps = request_token(host, functools.partial(hanging, shared), 10.0)
    next(steps)
    pid = eventually(lambda: struct.unpack("q", shared)[0], what="the child")
    steps.close()
    assert not psutil.pid_exists(pid)


def test_a_token_expires_by_the_controllers_clock():
    token = RegistrationToken("AAATOKEN", time.time() + 60, "https://x", None, ())
    assert not expired(token, None)
    assert not expired(token, 30.0)
    assert expired(token, 90.0)


# ---- the tokens of a registration ----------------------------------------------


class FakeContext:
    """A runner-watcher whose requests are answered at once, one reply after another."""

    def __init__(self, monkeypatch, *replies, **github):
        self.settings = sample_settings(
            {
                "github": {"labels": ["linux"], "runner_group": "ci", **github},
                "controller": {"retry": {"max_attempts": 3}},
            }
        )
        self.identity = IDENTITY
        self.client = FakeClient(registration_token=replies)
        self.facts = []
        monkeypatch.setattr(token_request, "request_token", self.request)

    def report(self, fact):
        self.facts.append(fact)

    def request(self, host, call, seconds):
        """What the child would say."""
        yield 0.0
        try:
            token = call()
        except ControllerError as error:
            reply = token_request._failure(error)
        else:
            offset = self.client.clock_offset_seconds
            reply = TokenReply(asdict(token), clock_offset_seconds=offset)
        reply.raise_error()
        return reply

    def next(self, tokens):
        """The next token, and the seconds that were waited for it."""
        waits, steps = [], tokens.next()
        while True:
            try:
                waits.append(next(steps))
            except StopIteration as end:
                return end.value, [wait for wait in waits if wait]


def tokens_of(host, spent=()):
    return RegistrationTokens(host, "vm-1-8a6ba3f6", spent)


def test_a_token_is_asked_for_with_all_that_the_runner_wants_to_be(monkeypatch):
    host = FakeContext(monkeypatch, TOKEN)
    tokens = tokens_of(host)
    assert host.next(tokens) == (TOKEN, [])
    assert host.client.of("registration_token") == [
        {
            "org_id": "org-1",
            "pool_id": "pool-1",
            "runner_group": "ci",
            "labels": ["linux"],
            "runner_name": "vm-1-8a6ba3f6",
        }
    ]
    assert host.facts == [ControllerAnswered("registration-token", 0.25)]
    assert tokens.count == 1


def test_a_request_that_fails_is_repeated_and_reported_once_after_max_attempts(
    monkeypatch,
):
    down = ControllerUnreachable("POST https://controller.example failed: 503")
    host = FakeContext(monkeypatch, *[down] * 5, TOKEN)
    token, waits = host.next(tokens_of(host))
    assert token == TOKEN
    assert len([each for each in waits if each]) == 5
    (noted,) = [fact for fact in host.facts if isinstance(fact, FaultNoted)]
    assert noted.code == "call_failing"
    assert noted.message == f"registration-token: 3 attempts in a row failed: {down}"


def test_a_refusal_is_final(monkeypatch):
    host = FakeContext(
        monkeypatch, Refused("POST ... failed: 403 Forbidden", 403, "no")
    )
    with pytest.raises(GivenUp, match="403 Forbidden") as caught:
        host.next(tokens_of(host))
    assert caught.value.fact.exit_status == 77


def bad(label):
    return BadRegistration(f"label {label!r} cannot be used")


def test_labels_that_cannot_be_registered_are_reported_and_asked_for_again(monkeypatch):
    host = FakeContext(monkeypatch, bad("a,b"), TOKEN)
    token, waits = host.next(tokens_of(host))
    assert token == TOKEN
    assert len(waits) == 1
    (noted,) = [fact for fact in host.facts if isinstance(fact, FaultNoted)]
    assert (noted.category, noted.code) == ("permanent", "bad_registration")
    assert noted.message == "label 'a,b' cannot be used"
    assert noted.hint


def test_three_answers_that_cannot_be_registered_end_the_machine_with_77(monkeypatch):
    host = FakeContext(monkeypatch, bad("a,b"))
    with pytest.raises(GivenUp, match="label 'a,b'") as caught:
        host.next(tokens_of(host))
    assert len(host.client.of("registration_token")) == 3
    assert len([fact for fact in host.facts if isinstance(fact, FaultNoted)]) == 2
    assert caught.value.fact.code == "bad_registration"
    assert caught.value.fact.exit_status == 77


def test_three_tokens_that_had_expired_end_the_machine_with_77(monkeypatch):
    old = replace(TOKEN, expires_at=time.time() - 1.0)
    host = FakeContext(monkeypatch, old)
    with pytest.raises(GivenUp, match="already expired") as caught:
        host.next(tokens_of(host))
    assert len(host.client.of("registration_token")) == 3
    assert caught.value.fact.code == "registration_token_expired"
    assert caught.value.fact.exit_status == 77


def test_the_metadatas_token_is_used_once_and_only_where_it_is_asked_for(monkeypatch):
    given = replace(TOKEN, token="AAAGIVEN")
    monkeypatch.setattr(token_request, "token_of_metadata", lambda *_: given)
    host = FakeContext(
        monkeypatch, TOKEN, token_source="metadata", metadata_path="x", org="o"
    )
    tokens = tokens_of(host)
    assert host.next(tokens)[0] == given
    assert host.client.calls == []
    assert host.next(tokens)[0] == TOKEN
    spent = tokens_of(host, [token_request.digest(given)])
    assert host.next(spent)[0] == TOKEN


def test_metadata_without_a_token_is_reported_and_the_controller_is_asked(monkeypatch):
    def gone(*_):
        raise ControllerUnreachable("x: there is no such metadata on gce")

    monkeypatch.setattr(token_request, "token_of_metadata", gone)
    host = FakeContext(
        monkeypatch, TOKEN, token_source="metadata", metadata_path="x", org="o"
    )
    assert host.next(tokens_of(host))[0] == TOKEN
    assert isinstance(host.facts[0], FaultNoted)
    assert host.facts[0].code == "metadata_token"
