"""The server behind ``miglet-ctl``: JSON-RPC on a Unix socket, in the arbiter's loop.

The rule that holds here: whatever a client does or leaves undone costs the loop a
bounded piece of work and nothing else. The loop watches `fileno` and calls `serve`.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from miglet.control.path import Doorway, group_id
from miglet.control.peers import Client, Peer, may_change, may_read, peer_of
from miglet.control.rpc import (
    BAD_PARAMS,
    BUSY,
    INVALID_REQUEST,
    NOT_PERMITTED,
    Request,
    RpcError,
    failure,
    notice,
    reply,
    request_in,
)

#: Clients at a time, and those of one user who is neither root nor ourselves.
MOST_CLIENTS = 16
MOST_OF_A_USER = 4

#: Requests of one client that are answered before the others have their turn.
REQUESTS_A_TURN = 8

#: What a subscriber may leave unread before it is dropped.
WATCHER_BYTES = 65536

Answer = Callable[[str, dict[str, Any], Peer], Any]

log = logging.getLogger(__name__)


class Clerk:
    """Turns a line into the line that answers it, minding who may ask for what."""

    def __init__(self, answer: Answer, changing: frozenset[str]) -> None:
        self._answer = answer
        self._changing = changing

    def reply_to(self, client: Client, line: bytes) -> bytes:
        """The answer to `line`; nothing to a notification that could be obeyed.

        An error is always told, also to a notification: JSON-RPC would keep silent,
        and leave who types by hand in the dark.
        """
        id = None
        try:
            request = request_in(line)
            id = request.id
            result = self._obey(client, request)
        except RpcError as error:
            return failure(id, error)
        return b"" if request.notification else reply(id, result)

    def _obey(self, client: Client, request: Request) -> Any:
        if not isinstance(request.params, dict):
            raise RpcError(BAD_PARAMS, "params are passed by name, in an object")
        if request.method == "watch":
            client.watching = True
            return {"watching": True}
        if request.method in self._changing:
            insist_on_right(client.peer, request)
        return self._answer(request.method, request.params, client.peer)


def insist_on_right(peer: Peer, request: Request) -> None:
    """Raise RpcError unless `peer` may change something, and waits for the answer."""
    if request.notification:
        raise RpcError(INVALID_REQUEST, f"{request.method} needs an id")
    if not may_change(peer):
        log.warning("control: %s refused to user %d", request.method, peer.uid)
        raise RpcError(NOT_PERMITTED, f"not permitted: only root may {request.method}")
    log.info("control: %s by user %d (pid %d)", request.method, peer.uid, peer.pid)


class ControlServer:
    """Answers the clients of one socket by calling `answer(method, params, peer)`.

    `answer` returns what JSON can carry or raises RpcError; it runs in the caller of
    `serve`. Methods in `changing` are for root and our own user, the others also for
    members of `group`. The method `watch` is answered here: see `publish`.
    """

    def __init__(
        self,
        path: str,
        answer: Answer,
        changing: frozenset[str] = frozenset(),
        group: str = "miglet",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clerk = Clerk(answer, changing)
        self._gid = group_id(group)
        self._clock = clock
        self._clients: dict[int, Client] = {}
        self._doorway = Doorway(path, self._gid)
        self._selector = selectors.EpollSelector()
        self._selector.register(self._doorway, selectors.EVENT_READ)

    def fileno(self) -> int:
        """A descriptor that is readable whenever `serve` has something to do."""
        return self._selector.fileno()

    def serve(self) -> None:
        """Do what can be done now; never blocks."""
        for key, events in self._selector.select(0):
            if key.fileobj is self._doorway:
                for connection in self._doorway.arrivals():
                    self._welcome(connection)
            elif client := self._clients.get(key.fd):
                self._turn(client, events)

    def expire(self, now: float) -> None:
        """Drop the clients that are overdue at monotonic time `now`."""
        for client in list(self._clients.values()):
            if client.overdue(now):
                self._drop(client)

    def publish(self, params: dict[str, Any]) -> None:
        """Tell every subscriber `changed`; drop those that have stopped reading.

        A subscriber should ask for large answers over another connection: they
        count as unread too.
        """
        line = notice("changed", params)
        for client in list(self._clients.values()):
            if client.watching:
                self._push(client, line)

    def close(self) -> None:
        """Drop everybody and remove the socket, if it is still ours."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._doorway.close()

    def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        peer = peer_of(connection)
        if refusal := self._objection(peer):
            with connection, contextlib.suppress(OSError):
                connection.send(failure(None, refusal))
            return
        client = Client(connection, peer, self._clock())
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ)

    def _objection(self, peer: Peer) -> RpcError | None:
        if not may_read(peer, self._gid):
            log.warning("control: user %d (pid %d) refused", peer.uid, peer.pid)
            return RpcError(NOT_PERMITTED, "not permitted: join MIGlet's group")
        counts = Counter(client.peer.uid for client in self._clients.values())
        too_many = counts[peer.uid] >= MOST_OF_A_USER and not may_change(peer)
        if too_many or len(self._clients) >= MOST_CLIENTS:
            return RpcError(BUSY, "too many connections: try again")
        return None

    def _turn(self, client: Client, events: int) -> None:
        """Read, answer and write for `client`, each as far as it goes at once."""
        try:
            if events & selectors.EVENT_READ and not client.has_request:
                client.read(self._clock())
            client.write()
            self._answer_some(client)
        except OSError:
            # It went away in the middle; nobody is left to be told.
            self._drop(client)
        else:
            self._wait_for(client)

    def _answer_some(self, client: Client) -> None:
        for _ in range(REQUESTS_A_TURN):
            if client.outbox or not client.has_request:
                return
            client.outbox += self._clerk.reply_to(client, client.next_line())
            client.write()

    def _push(self, client: Client, line: bytes) -> None:
        if len(client.outbox) + len(line) > WATCHER_BYTES:
            log.warning("control: subscriber %d does not read", client.peer.pid)
            self._drop(client)
            return
        client.outbox += line
        try:
            client.write()
        except OSError:
            self._drop(client)
        else:
            self._wait_for(client)

    def _wait_for(self, client: Client) -> None:
        """Have epoll say when `client` can go on, or drop it when it is done.

        With a request left to be answered, that is when it takes the answer: thus
        the others have their turn first, and who does not read is not answered.
        """
        if client.done:
            self._drop(client)
        elif client.connection.fileno() in self._clients:
            client.note_halves(self._clock())
            self._selector.modify(client.connection, interest_in(client))

    def _drop(self, client: Client) -> None:
        if self._clients.pop(client.connection.fileno(), None):
            self._selector.unregister(client.connection)
            client.connection.close()


def interest_in(client: Client) -> int:
    """What to wait for: its next request, or that it takes what it has asked for."""
    reading = not client.has_request and not client.ended
    writing = client.has_request or client.outbox
    return (selectors.EVENT_READ if reading else 0) | (
        selectors.EVENT_WRITE if writing else 0
    )
