"""A queue pair per worker incarnation: one socket, one JSON document a message.

``SOCK_SEQPACKET`` keeps messages whole whatever dies while writing, and gives
end-of-file at once when the other side is gone. A pair is never shared or reused, so
a killed worker can leave nothing locked.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator

from miglet.errors import BadMessage
from miglet.messages.codec import LIMIT, Message, decode, encode

#: Messages that may wait for a worker that does not read; more means that it hangs.
BACKLOG = 256

#: Messages that are taken at a time, so that a flooding sender delays nobody else.
RECEIVE_LIMIT = 64


class QueueClosed(BadMessage):
    """The other side is gone."""


class Queue:
    """One end of a pair. The arbiter's end never blocks; a worker's end may."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._waiting: deque[bytes] = deque()

    def fileno(self) -> int:
        """The descriptor, for a selector."""
        return self._end.fileno()

    def put(self, message: Message) -> None:
        """Send, waiting for room if this end blocks; QueueClosed if nobody is there."""
        try:
            self._end.send(encode(message))
        except OSError as error:
            raise QueueClosed(str(error)) from None

    def post(self, message: Message) -> None:
        """Send without ever waiting; what does not fit is sent by `flush` later.

        Raises BadMessage when the backlog is full and QueueClosed at the end.
        """
        if len(self._waiting) >= BACKLOG:
            raise BadMessage("the queue stays full")
        self._waiting.append(encode(message))
        self.flush()

    def flush(self) -> bool:
        """Send what waits; whether nothing is left waiting."""
        try:
            while self._waiting:
                self._end.send(self._waiting[0], socket.MSG_DONTWAIT)
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
