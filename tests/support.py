"""What several test modules share: waiting for a condition, and nothing more."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")


def eventually(
    condition: Callable[[], Seen], seconds: float = 10.0, what: str = ""
) -> Seen:
    """The first true value of `condition`; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        select.select([], [], [], 0.01)
