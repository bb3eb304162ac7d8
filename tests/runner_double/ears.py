"""One place to wait: for signals, pipes, ended children, timers and the test's bell.

Nothing in the double sleeps; a process that waits here hears everything at once.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def undisturbed(signum: int, frame: object) -> None:
    """The Python half of a signal handler; the wake-up descriptor does the work."""


class Ears:
    """Callbacks for readable descriptors, signals and due times."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def listen(self, source: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `source` can be read or has ended."""
        self._callbacks[source] = callback
        self._poll.register(source, select.POLLIN)

    def forget(self, source: int) -> None:
        if self._callbacks.pop(source, None):
            self._poll.unregister(source)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, callback))
        self._timers.sort(key=lambda timer: timer[0])

    def heed(self, callbacks: dict[int, Callable[[], None]]) -> None:
        """Call back on signals. A SIGINT ignored at the start stays ignored.

        That is what .NET does (dotnet/runtime pal_signal.c).
        """
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for signum in callbacks:
            ignored = signal.getsignal(signum) is signal.SIG_IGN
            if not (signum == signal.SIGINT and ignored):
                signal.signal(signum, undisturbed)

        def rung() -> None:
            for signum in os.read(reading, 512):
                callbacks.get(signum, lambda: None)()

        self.listen(reading, rung)

    def hear(self, seconds: float | None = None) -> None:
        """Wait once, at most so long, and make the calls that are due."""
        now = time.monotonic()
        limits = [due - now for due, _ in self._timers[:1]]
        limits += [] if seconds is None else [seconds]
        limit = max(0.0, min(limits)) * 1000 + 0.999 if limits else None
        for source, _ in self._poll.poll(limit):
            self._callbacks.get(source, lambda: None)()
        self._ring_timers()

    def until(self, condition: Callable[[], object], seconds: float | None) -> bool:
        """Hear until `condition` holds; False if it did not hold in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not condition():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.hear(left)
        return True

    def _ring_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._timers.pop(0)[1]()


def hang_bell(ears: Ears, root: Path) -> Path:
    """A FIFO by which the test can wake this process; look at the files after that."""
    path = root / "double" / "bells" / str(os.getpid())
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    bell = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def rung() -> None:
        os.read(bell, 4096)

    ears.listen(bell, rung)
    return path


def ring_bells(bells: Iterable[Path]) -> None:
    """Wake everybody who still listens."""
    for path in bells:
        try:
            bell = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # its owner is dead
            continue
        os.write(bell, b"!")
        os.close(bell)
