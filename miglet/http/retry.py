"""How long to wait before the next attempt, and what ``Retry-After`` asks for.

Nothing here waits: a worker sets its next period by it, so that it goes on hearing
orders. All delays are random, so that a fleet does not come back in step.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator

import backoff

from miglet.errors import MigletError
from miglet.formats import parse_http_date

#: The shortest and the longest time, in seconds, that a controller may ask for.
SHORTEST, LONGEST = 1.0, 300.0

#: A first step that is 0 would never grow.
LEAST_INITIAL = 0.001

NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?(e[0-9])?", re.IGNORECASE)


class Backoff:
    """Growing random delays between failed attempts at one thing.

    Full jitter: uniform between 0 and `initial` * 2^n, at most `maximum` seconds.
    """

    def __init__(self, initial: float, maximum: float) -> None:
        self.initial = max(initial, LEAST_INITIAL)
        self.maximum = maximum
        self.reset()

    def reset(self) -> None:
        """The attempt succeeded: the next failure is the first again."""
        #: Failures since the last success.
        self.failures = 0
        self._steps = steps(self.initial, self.maximum)

    def delay(self, error: MigletError | None = None) -> float:
        """Seconds until the next attempt, after one that failed with `error`.

        A ``Retry-After`` is kept to: up to a fifth longer, never shorter.
        """
        self.failures += 1
        step = next(self._steps)
        asked: float | None = getattr(error, "retry_after", None)
        if asked is None:
            return backoff.full_jitter(step)
        return clamped(asked) * random.uniform(1.0, 1.2)


def steps(initial: float, maximum: float) -> Iterator[float]:
    """The bounds of the delays, without end: `initial` and its doubles."""
    # backoff 2 starts with a None that backoff 1 does not have.
    growing = backoff.expo(factor=initial, max_value=maximum)
    return (step for step in growing if step is not None)


def clamped(seconds: float) -> float:
    return min(max(seconds, SHORTEST), LONGEST)


def retry_after(value: str | None, date: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, 1 to 300; None if it is garbage.

    A time of day is compared with `date`, the answer's own ``Date``, because our
    clock may be wrong (RFC 9110, 10.2.3).
    """
    text = (value or "").strip()
    if NUMBER.fullmatch(text):
        return clamped(float(text))
    until = parse_http_date(text)
    if until is None:
        return None
    since = parse_http_date(date)
    return clamped(until - (time.time() if since is None else since))
