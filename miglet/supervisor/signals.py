"""Signals as something to read, and none of them delivered in the middle of a fork.

The interpreter's own handler does nothing but write the signal's number to a socket;
everything that follows happens where that socket is read.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterable, Iterator

#: What the parent listens to.
PARENT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class SignalPipe:
    """The signals that arrived, in order, behind one descriptor."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._numbers = tuple(numbers)
        # First: a handler without it would swallow what comes in between.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, _noted)

    def fileno(self) -> int:
        """The descriptor, for a selector."""
        return self._reader.fileno()

    def drain(self) -> list[str]:
        """The names of the signals since the last call, e.g. ``SIGTERM``.

        The interpreter writes the number of every signal with a handler, also of the
        alarm that bounds a request: only those that were asked for are reported.
        """
        try:
            heard = self._reader.recv(4096)
        except BlockingIOError:
            return []
        return [signal.Signals(each).name for each in heard if each in self._numbers]

    def close(self) -> None:
        """Hand the signals back to nobody."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _noted(number: int, frame: object) -> None:
    """Does nothing: the number has gone to the wakeup descriptor."""


def die_by_interrupt() -> None:
    """Have SIGINT end us as SIGTERM does, until somebody listens to both.

    An exception that comes at any moment can come where it is swallowed, in a finaliser
    for one; and a shell has what it starts in the background ignore SIGINT.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """No signal is delivered inside: a forked child would take it for its parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Let signals in again, in a child that was forked with them `blocked`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENT)
