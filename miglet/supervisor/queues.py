"""A queue pair per worker incarnation: one socket, one JSON document a message.

``SOCK_SEQPACKET`` keeps messages whole whatever dies while writing, and gives
end-of-file at once when the other side is gone. A pair is never shared or reused, so
a killed worker can leave nothing locked.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator

from miglet.errors import BadMessage
from miglet.messages.codec import LIMIT, Message, Order, decode, encode

#: Messages that may wait for a worker that does not read; more means that it hangs.
BACKLOG = 256

#: Messages that are taken at a time, so that a flooding sender delays nobody else.
RECEIVE_LIMIT = 64

#: What the facts of a sender may cost per second in the long run, and all at once. The
#: heartbeat-sender, busiest with a backlog, sends less than half of that.
BUDGET_PER_SECOND = 4000.0
BUDGET_AT_ONCE = 8000.0


class QueueClosed(BadMessage):
    """The other side is gone."""


class Budget:
    """A token bucket: how much the facts of one sender may cost.

    Facts that are well-formed and allowed can still be too many: each costs the arbiter
    time, and some of them an event in the journal or a process.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left, self._at = BUDGET_AT_ONCE, clock()

    def spend(self, cost: int) -> None:
        """Take `cost`; raises BadMessage when so much is not left."""
        now = self._clock()
        refill = (now - self._at) * BUDGET_PER_SECOND
        self._left, self._at = min(BUDGET_AT_ONCE, self._left + refill), now
        self._left -= cost
        if self._left < 0:
            raise BadMessage("facts come faster than they may")


class Queue:
    """One end of a pair. The arbiter's end never blocks; a worker's end may."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        #: What did not fit yet; with its kind what a later order supersedes.
        self._waiting: deque[tuple[type[Message] | None, bytes]] = deque()

    def fileno(self) -> int:
        """The descriptor, for a selector."""
        return self._end.fileno()

    def put(self, message: Message) -> None:
        """Send, waiting for room if this end blocks; QueueClosed if nobody is there."""
        try:
            self._end.send(encode(message))
        except OSError as error:
            raise QueueClosed(str(error)) from None

    def post(self, order: Order) -> None:
        """Send without ever waiting; what does not fit is sent by `flush` later.

        Raises BadMessage when the backlog is full and QueueClosed at the end.
        """
        kind = type(order) if order.is_replaceable else None
        if kind:
            left = [each for each in self._waiting if each[0] is not kind]
            self._waiting = deque(left)
        if len(self._waiting) >= BACKLOG:
            raise BadMessage("the queue stays full")
        self._waiting.append((kind, encode(order)))
        self.flush()

    def flush(self) -> bool:
        """Send what waits; whether nothing is left waiting."""
        try:
            while self._waiting:
                self._end.send(self._waiting[0][1], socket.MSG_DONTWAIT)
                self._waiting.popleft()
        except BlockingIOError:
            return False
        except OSError as error:
            raise QueueClosed(str(error)) from None
        return True

    def receive(self, limit: int = RECEIVE_LIMIT) -> Iterator[Message]:
        """Yield what has arrived, at most `limit` messages.

        Raises QueueClosed at end-of-file, and BadMessage for what is not a message,
        in both cases after the messages before it.
        """
        for _ in range(limit):
            encoded = self._received()
            if encoded is None:
                return
            if not encoded:
                raise QueueClosed("end of file")
            yield decode(encoded)

    def _received(self) -> bytes | None:
        try:
            return self._end.recv(LIMIT + 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Close this end; the other side sees end-of-file."""
        self._end.close()


def pair() -> tuple[Queue, Queue]:
    """Two connected ends: the arbiter's and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Queue(ours), Queue(theirs)
