"""A controller whose TLS fails for a while, before, during and after a job.

Nobody whom we do not trust gets a request of ours, and everything arrives later.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.authority import DAY, NOW, Authority
from tests.end_to_end.conftest import HELD, pointed_at
from tests.faults import invariants
from tests.faults.network_faults import FaultyProxy, faulty_proxy
from tests.faults.test_delivery import (
    FAULT_SECONDS,
    MOST_PER_SECOND,
    SETTINGS,
    beats_again,
    pause,
)
from tests.http.test_tls import server_context
from tests.support import eventually


@dataclass
class Encrypted(FaultyProxy):
    """The proxy as a TLS server, whose certificate the test can change."""

    context: ssl.SSLContext | None = None
    #: Monotonic time of every connection.
    connections: list[float] = field(default_factory=list)
    _open: list[socket.socket] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"https://{self.host}:{self.port}"

    def show(self, context: ssl.SSLContext | None) -> None:
        """From now on this one (None: plain HTTP), to those already there, too."""
        self.context = context
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def serve(self, client: socket.socket) -> None:
        """All requests of a connection that has passed the handshake."""
        self.connections.append(time.monotonic())
        with contextlib.suppress(OSError), client:
            client.settimeout(60)
            self._answer(client, self.context)

    def _answer(self, client: socket.socket, context: ssl.SSLContext | None) -> None:
        if context is None:
            misunderstood(client)
            return
        with context.wrap_socket(client, server_side=True) as secured:
            self._open.append(secured)
            if context is self.context:
                super().serve(secured)


def misunderstood(client: socket.socket) -> None:
    """What a server that expects plain HTTP makes of a handshake."""
    client.recv(65536)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def expired(ours: Authority, other: Authority) -> ssl.SSLContext:
    return server_context(*ours.issue("old", until=NOW - DAY))


def of_another_host(ours: Authority, other: Authority) -> ssl.SSLContext:
    return server_context(*ours.issue("elsewhere", names=["127.0.0.2"]))


def of_an_unknown_authority(ours: Authority, other: Authority) -> ssl.SSLContext:
    return server_context(*other.issue("stranger"))


def too_old(ours: Authority, other: Authority) -> ssl.SSLContext:
    context = server_context(*ours.issue("ancient"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def that_asks_who_we_are(ours: Authority, other: Authority) -> ssl.SSLContext:
    return server_context(*ours.issue("strict"), other.path)


def plain(ours: Authority, other: Authority) -> None:
    """Not encrypted at all."""


Failure = Callable[[Authority, Authority], ssl.SSLContext | None]

FAILURES: list[Failure] = [
    expired,
    of_another_host,
    of_an_unknown_authority,
    too_old,
    that_asks_who_we_are,
    plain,
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: each.__name__)
def test_tls_that_fails_for_a_while_loses_and_repeats_nothing(
    machine, controller, tmp_path, failure
):
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    good, bad = server_context(*ours.issue("good")), failure(ours, other)
    trusting = {**SETTINGS["controller"], "auth": {"ca_path": str(ours.path)}}
    with faulty_proxy(controller.endpoint, kind=Encrypted) as way:
        vm = machine(
            {**HELD, "result": "Failed"}, **{**SETTINGS, "controller": trusting}
        )
        vm = pointed_at(vm, way.endpoint)

        def last_error() -> str | None:
            return vm.agent.status()["controller"]["last_error"]

        def failing() -> None:
            """Bad TLS for some time: nothing is said, and attempts stay few."""
            heard, began = len(way.requests), time.monotonic()
            pause(FAULT_SECONDS)
            ended = time.monotonic()
            tried = sum(began <= at <= ended for at in way.connections)
            eventually(lambda: "TLS" in (last_error() or ""), what="the failure")
            assert len(way.requests) == heard
            assert 0 < tried <= MOST_PER_SECOND * (ended - began)
            way.show(good)

        way.show(bad)
        vm.agent.start()
        eventually(lambda: way.connections, what="a connection")
        failing()
        vm.event("RunnerRegistered")
        beats_again(vm, way)

        way.show(bad)
        vm.double.release_job()
        eventually(lambda: vm.double.truth("step_start"), what="the step")
        failing()
        beats_again(vm, way)

        way.show(bad)
        vm.double.finish_step()
        eventually(lambda: vm.double.truth("result"), what="the result")
        failing()
        assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)
