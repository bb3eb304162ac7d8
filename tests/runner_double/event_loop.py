"""One place to wait: for signals, pipes, ended children, timers and wake-ups.

Nothing in the double sleeps; a process that waits here handles whatever comes first.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def _do_nothing(signum: int, frame: object) -> None:
    """The Python half of a signal handler; the wake-up descriptor does the work."""


class EventLoop:
    """Callbacks for readable descriptors, signals and due times."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, source: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `source` can be read or has ended."""
        self._callbacks[source] = callback
        self._poll.register(source, select.POLLIN)

    def remove_reader(self, source: int) -> None:
        if self._callbacks.pop(source, None):
            self._poll.unregister(source)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, callback))
        self._timers.sort(key=lambda timer: timer[0])

    def on_signals(self, callbacks: dict[int, Callable[[], None]]) -> None:
        """Call back on signals. A SIGINT ignored at the start stays ignored.

        That is what .NET does (dotnet/runtime pal_signal.c).
        """
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for signum in callbacks:
            ignored = signal.getsignal(signum) is signal.SIG_IGN
            if not (signum == signal.SIGINT and ignored):
                signal.signal(signum, _do_nothing)

        def dispatch() -> None:
            for signum in os.read(reading, 512):
                callbacks.get(signum, lambda: None)()

        self.add_reader(reading, dispatch)

    def run_once(self, seconds: float | None = None) -> None:
        """Wait once, at most so long, and make the calls that are due."""
        now = time.monotonic()
        limits = [due - now for due, _ in self._timers[:1]]
        limits += [] if seconds is None else [seconds]
        limit = max(0.0, min(limits)) * 1000 + 0.999 if limits else None
        for source, _ in self._poll.poll(limit):
            self._callbacks.get(source, lambda: None)()
        self._run_timers()

    def run_until(self, condition: Callable[[], object], seconds: float | None) -> bool:
        """Run until `condition` holds; False if it did not hold in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not condition():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.run_once(left)
        return True

    def run_for(self, seconds: float) -> None:
        """Run so long, whatever happens."""
        self.run_until(lambda: False, seconds)

    def run_forever(self) -> None:
        """Run until something raises, or the process is killed."""
        self.run_until(lambda: False, None)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._timers.pop(0)[1]()


def open_wakeup(loop: EventLoop, root: Path) -> Path:
    """A FIFO by which the test wakes this process; look at the files after that."""
    path = root / "double" / "wakeups" / str(os.getpid())
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    wakeup = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def drain() -> None:
        os.read(wakeup, 4096)

    loop.add_reader(wakeup, drain)
    return path


def wake(wakeups: Iterable[Path]) -> None:
    """Wake every process that still waits."""
    for path in wakeups:
        try:
            wakeup = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # its owner is dead
            continue
        os.write(wakeup, b"!")
        os.close(wakeup)
