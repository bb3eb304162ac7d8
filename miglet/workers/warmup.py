"""The warm-up: what every worker runs is run once before the first one is forked.

CPython writes into a function while it runs for the first times (PEP 659), and each
process that does so has its own copy of the page from then on. A few rounds in the
parent, 7 ms of them, leave the workers 0.5 MB smaller; it is what Ruby calls
``Process.warmup``. The rounds are those of a real worker with a real client, whose
connections end in a socket of our own: nothing of a library is replaced, no name is
resolved, nobody is connected to.
"""

from __future__ import annotations

import contextlib
import socket
import sys

from miglet.config.settings import Settings
from miglet.controller.client import Client
from miglet.errors import ControllerError, CredentialUnusable
from miglet.http.tls import tls_for
from miglet.http.transport import PlainConnection, PlainPool, TlsAdapter, Transport
from miglet.messages.events import Identity
from miglet.messages.facts import ControllerAnswered
from miglet.supervisor import queues
from miglet.workers.base import Worker

#: A function is specialised when it runs for the eighth time in CPython 3.11.
ROUNDS = 10

#: Seconds for one round, whatever the settings say; it takes half a millisecond.
TIMEOUT_SECONDS = 10.0

#: A name that does not exist (RFC 2606); it is never resolved.
ENDPOINT = "http://warmup.invalid"

#: The only answer; a connection is good for one.
ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 22\r\n"
    b'Connection: close\r\n\r\n{"acknowledged": true}'
)


class FakeConnection(PlainConnection):
    """A connection to a socket of our own, where the answer waits for the request."""

    def connect(self) -> None:
        """Open both ends, and have the answer in the buffer of ours."""
        self.sock, self._peer = socket.socketpair()
        self._peer.sendall(ANSWER)

    def close(self) -> None:
        """Close both ends."""
        if self.sock is not None:
            self._peer.close()
        super().close()


class FakePool(PlainPool):
    """The pool of such connections."""

    ConnectionCls = FakeConnection


class WarmupWorker(Worker):
    """Makes some rounds of what the workers that talk to the controller do."""

    name = "warmup"
    facts = frozenset({ControllerAnswered})
    user = ""

    def __init__(self, settings: Settings, identity: Identity) -> None:
        super().__init__(settings, identity)
        adapter = TlsAdapter(None, {"http": FakePool})
        transport = Transport(settings.controller, adapter)
        self._client = Client(settings.controller, identity.vm_id, transport)
        self._left = ROUNDS

    def take_over_signals(self) -> None:
        """They are the parent's."""

    def work(self) -> None:
        """One round."""
        event = {"id": "warmup", "type": self.name, "sequence": self._left}
        self._client.post_event(event)
        self.ping()
        self.report(ControllerAnswered("events", self._client.clock_offset_seconds))
        self._left -= 1
        self._stop_requested = self._left == 0
        self.work_soon()

    def close(self) -> None:
        """Leave nothing open in the parent."""
        self._client.close()
        self._selector.close()


def warm_up_tls(settings: Settings) -> None:
    """Load what is trusted into the context that serves every worker: 1.4 MB in all."""
    files = tls_for(settings.controller)
    if files is None:
        return
    # Files that are not there yet are loaded by each worker when they are.
    with contextlib.suppress(CredentialUnusable):
        files.prepare()


def warm_up(settings: Settings, identity: Identity) -> None:
    """Run what the workers share; call it before gc.freeze and the first fork."""
    if sys.version_info < (3, 12):
        # The cache of attributes holds names, on pages all over the memory, which
        # each worker would let go of: 0.5 MB in all. From 3.12 on names are immortal.
        sys._clear_type_cache()
    stage = {
        "controller.endpoint": ENDPOINT,
        "controller.auth.type": "none",
        "controller.proxy": None,
        "controller.timeout": TIMEOUT_SECONDS,
    }
    warm_up_tls(settings)
    ours, theirs = queues.pair()
    try:
        # The machine may have stood still in the middle: then the workers grow.
        with contextlib.suppress(ControllerError):
            WarmupWorker(settings.replaced(stage), identity)(theirs)
    finally:
        ours.close()
        theirs.close()
