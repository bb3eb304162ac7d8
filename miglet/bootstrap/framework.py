"""What a check is: a small function that returns what it found, or raises a finding.

The boot waits for what must be right, and only a moment for what merely should be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from miglet.config.settings import Settings
from miglet.errors import MigletError

#: From the settings and the monotonic time by which it must have ended.
Look = Callable[[Settings, float], str]


class Finding(MigletError):
    """Something is not as it should be; `hint` says what to do about it."""

    #: ``warn`` or ``fail``.
    status = "fail"

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.hint = hint


class Misconfiguration(Finding):
    """The machine cannot take jobs with this configuration or image."""

    category = "misconfig"


class Unavailable(Finding):
    """The machine cannot take jobs now; it may later."""

    category = "infrastructure"


class Notable(Finding):
    """Jobs can run, but somebody should know."""

    status = "warn"
    category = ""


class Check(NamedTuple):
    """A check, and what it may cost the boot."""

    look: Look
    #: Seconds that it is waited for; None: as long as bootstrap.timeout allows. One
    #: with a limit can only warn: what it looks at is not needed for the start.
    seconds: float | None = None

    def kind(self) -> type[Finding]:
        """What it means when the check cannot be made, or does not come to an end."""
        return Unavailable if self.seconds is None else Notable


#: Every check by its id, filled as the modules beside this one are imported.
CHECKS: dict[str, Check] = {}


def check(look: Look) -> Look:
    """Register a function as the check of its name."""
    CHECKS[look.__name__] = Check(look)
    return look


def brief_check(seconds: float) -> Callable[[Look], Look]:
    """Register a check that is not waited for any longer than so many seconds."""

    def register(look: Look) -> Look:
        CHECKS[look.__name__] = Check(look, seconds)
        return look

    return register
