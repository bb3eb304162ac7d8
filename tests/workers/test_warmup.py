"""The warm-up before the fork: whole rounds, of which nobody outside sees anything."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from urllib3 import poolmanager

from miglet.config.settings import Settings
from miglet.errors import ControllerUnreachable
from miglet.http import tls, transport
from miglet.messages.codec import Message
from miglet.messages.events import Identity
from miglet.messages.facts import ControllerAnswered
from miglet.supervisor import queues
from miglet.workers import warmup
from miglet.workers.warmup import ROUNDS, WarmupWorker, warm_up
from tests.authority import Authority
from tests.sample_settings import sample_settings
from tests.support import descriptors_before

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


def facts_of_a_warm_up() -> list[Message]:
    """What the worker reports meanwhile."""
    ours, theirs = queues.pair()
    try:
        WarmupWorker(staged(), IDENTITY)(theirs)
        return list(ours.receive())
    finally:
        ours.close()
        theirs.close()


def test_every_round_ends_with_an_answer():
    facts = [
        fact for fact in facts_of_a_warm_up() if isinstance(fact, ControllerAnswered)
    ]
    assert len(facts) == ROUNDS


@pytest.mark.parametrize(
    "controller", [{}, {"proxy": "http://127.0.0.1:9"}, {"timeout": 1e-6}], ids=str
)
def test_it_does_not_depend_on_the_settings(controller):
    warm_up(settings(**controller), IDENTITY)


def test_it_leaves_no_descriptor_and_no_signal_handler_behind():
    handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)]
    before = sorted(descriptors_before())
    warm_up(settings(), IDENTITY)
    assert sorted(os.listdir("/proc/self/fd")) == before
    after = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)]
    assert after == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_nobody_is_connected_to_and_no_name_is_looked_up(monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    warm_up(settings(), IDENTITY)


def test_the_rounds_run_the_code_of_real_connections():
    """Only where a connection leads differs: the same class parses its answers."""
    assert issubclass(warmup.FakePool, transport.PlainPool)
    response = warmup.FakeConnection.response_class
    assert response is transport.PlainConnection.response_class


def test_no_class_of_a_library_is_replaced():
    before = dict(poolmanager.pool_classes_by_scheme)
    warm_up(settings(), IDENTITY)
    assert poolmanager.pool_classes_by_scheme == before
    assert transport.TlsAdapter(None).poolmanager.pool_classes_by_scheme == (
        transport.POOLS
    )


def test_a_warm_up_that_fails_keeps_no_agent_from_starting(monkeypatch):
    monkeypatch.setattr(warmup, "ANSWER", NO)
    with pytest.raises(ControllerUnreachable):
        facts_of_a_warm_up()
    warm_up(settings(), IDENTITY)


# ---- TLS -----------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "PREPARED", {})
    return Authority(tmp_path, "private")


def encrypted(authority: Authority, **auth: object) -> Settings:
    named = {"type": "none", "ca_path": str(authority.path), **auth}
    return settings(endpoint="https://controller.example", auth=named)


def test_what_is_trusted_is_loaded_once_for_all_workers(authority, monkeypatch):
    given = encrypted(authority)
    warmup.warm_up_tls(given)
    monkeypatch.setattr(tls.TlsFiles, "_load", None)
    first, second = (tls.tls_for(given.controller).context() for _ in range(2))
    assert first is second
    assert first.get_ca_certs()


def test_an_authority_that_changed_after_the_fork_is_loaded_anew(authority, tmp_path):
    given = encrypted(authority)
    warmup.warm_up_tls(given)
    before = tls.tls_for(given.controller).context()
    other = Authority(tmp_path, "other")
    os.replace(other.path, authority.path)
    after = tls.tls_for(given.controller).context()
    assert after is not before
    assert after.get_ca_certs() != before.get_ca_certs()


def test_files_that_are_not_there_yet_do_not_hold_up_the_start(authority):
    warmup.warm_up_tls(encrypted(authority, ca_path="/no/such/file"))
    assert tls.PREPARED == {}


def test_no_private_key_is_loaded_before_the_fork(authority):
    certificate, key = authority.issue("machine")
    paths = {"certificate_path": str(certificate), "key_path": str(key)}
    warmup.warm_up_tls(encrypted(authority, type="mtls", **paths))
    assert tls.PREPARED == {}


def test_a_plain_endpoint_needs_no_context(monkeypatch):
    monkeypatch.setattr(tls, "PREPARED", {})
    warmup.warm_up_tls(settings(endpoint="http://127.0.0.1:9"))
    assert tls.PREPARED == {}
