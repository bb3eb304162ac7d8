"""A limit on the whole of a call, which a socket's timeout is not.

A socket's timeout starts anew with every byte, so a peer that sends one byte a
second holds a caller for ever. The one rule: only the main thread of a process may
use this, and nothing else there may use SIGALRM while a call runs.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from miglet.errors import ControllerUnreachable

Result = TypeVar("Result")

#: The alarm rings again after so many seconds: an exception that is raised while
#: a finaliser (``__del__``) runs is swallowed by the interpreter.
AGAIN = 0.05

#: The shortest limit; setitimer(2) takes 0 for "never".
SHORTEST = 0.001


class DeadlinePassed(ControllerUnreachable):
    """The call took longer than it may; what it had begun is void."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no complete answer within {seconds:g} s")


class _Rang(BaseException):
    """The alarm, on its way from the signal to `within`.

    Not an Exception: a library must not take it for a fault of its own and go on.
    """


class _Alarm:
    """SIGALRM after some seconds, and everything put back as it was before."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(seconds, SHORTEST)
        #: It rings in vain before the call has begun and after it has ended.
        self.armed = False

    def set(self) -> None:
        """Take over SIGALRM; a timer that was running is kept for later."""
        self.began = time.monotonic()
        self.handler = signal.signal(signal.SIGALRM, self.ring)
        self.timer = signal.setitimer(signal.ITIMER_REAL, self.seconds, AGAIN)

    def ring(self, _number: int, _frame: FrameType | None) -> None:
        if self.armed:
            raise _Rang

    def restore(self) -> None:
        """Give SIGALRM back; a timer that came due meanwhile rings at once."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.handler or signal.SIG_DFL)
        left, interval = self.timer
        if left:
            left -= time.monotonic() - self.began
            signal.setitimer(signal.ITIMER_REAL, max(left, SHORTEST), interval)


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """What `call()` returns; raises DeadlinePassed when it takes too long.

    Resolving a name is the one thing that this cannot cut short, since the C
    library does not return to Python before it has an answer (resolv.conf(5)).
    """
    alarm = _Alarm(seconds)
    alarm.set()
    # A function and two nested `try`, not a context manager: the alarm may ring
    # between the last instruction of the call and the first of its clean-up.
    try:
        try:
            alarm.armed = True
            return call()
        finally:
            alarm.armed = False
    except _Rang:
        raise DeadlinePassed(seconds) from None
    finally:
        alarm.armed = False
        alarm.restore()
