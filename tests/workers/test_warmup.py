"""The rehearsal before the fork: it plays the whole round, and nobody notices."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from miglet.config.settings import Settings
from miglet.errors import ControllerUnreachable
from miglet.messages.codec import Message
from miglet.messages.events import Identity
from miglet.messages.facts import ControllerAnswered
from miglet.supervisor import queues
from miglet.workers import warmup
from miglet.workers.warmup import ROUNDS, Rehearsal, rehearse
from tests.sample_settings import sample_settings

NO = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

IDENTITY = Identity("vm-1", "pool-1", "org-1", "0" * 32)


def settings(**controller: object) -> Settings:
    """As much of the configuration as a client looks at."""
    auth = {"type": "bearer", "token_path": "/no/such/file", "ca_path": None}
    auth |= {"certificate_path": None, "key_path": None}
    base = {"endpoint": "https://127.0.0.1:9", "timeout": 5.0, "proxy": None}
    return sample_settings({"controller": {**base, "auth": auth, **controller}})


def staged() -> Settings:
    return settings(endpoint=warmup.ENDPOINT, auth={"type": "none"})


def played() -> list[Message]:
    """What a rehearsal says while it lasts."""
    ours, theirs = queues.pair()
    try:
        Rehearsal(staged(), IDENTITY)(theirs)
        return list(ours.receive())
    finally:
        ours.close()
        theirs.close()


def test_every_round_ends_with_an_answer():
    facts = [fact for fact in played() if isinstance(fact, ControllerAnswered)]
    assert len(facts) == ROUNDS


@pytest.mark.parametrize(
    "controller", [{}, {"proxy": "http://127.0.0.1:9"}, {"timeout": 1e-6}], ids=str
)
def test_it_does_not_depend_on_the_settings(controller):
    rehearse(settings(**controller), IDENTITY)


def test_it_leaves_no_descriptor_and_no_signal_handler_behind():
    handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)]
    before = sorted(os.listdir("/proc/self/fd"))
    rehearse(settings(), IDENTITY)
    assert sorted(os.listdir("/proc/self/fd")) == before
    after = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)]
    assert after == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_nobody_is_connected_to_and_no_name_is_looked_up(monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    rehearse(settings(), IDENTITY)


def test_a_rehearsal_that_fails_hurts_nobody(monkeypatch):
    monkeypatch.setattr(warmup, "ANSWER", NO)
    with pytest.raises(ControllerUnreachable):
        played()
    rehearse(settings(), IDENTITY)
