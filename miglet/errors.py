"""Every error that MIGlet raises on purpose, in one tree.

An error says what is wrong, whether trying again may help, and with which status
the program ends when nobody does anything about it.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

#: Exit statuses of ``miglet`` (sysexits.h where it has one). The systemd unit does
#: not restart after DONE, REFUSED and MISCONFIGURED: another start cannot help.
DONE = 0
INTERNAL = 1
UNAVAILABLE = 69
CRASH_LOOP = 70
UNDELIVERED = 75
REFUSED = 77
MISCONFIGURED = 78


class MigletError(Exception):
    """Root of the tree: catch this to catch everything MIGlet means to raise."""

    #: Whether the same attempt may succeed later.
    transient = False

    #: The wire name of the category: transient, infrastructure, permanent,
    #: misconfig or user.
    category = "permanent"

    #: What ``miglet`` exits with when nothing catches the error.
    exit_status = INTERNAL

    #: What the reader can do about it; empty where the message says it all.
    hint = ""


class Fault(NamedTuple):
    """One mistake in the configuration: key, source, reason and suggestion."""

    #: The dotted key, or ``""`` when the whole source is unusable.
    key: str
    #: Where the value came from, e.g. ``/etc/miglet/miglet.yaml`` or
    #: ``environment MIGLET_POOL_ID``.
    source: str
    #: What is wrong and what was expected.
    reason: str
    #: What to do, e.g. the nearest known key; may be empty.
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.key} ({self.source})" if self.key else self.source
        return f"{place}: {self.reason}" + (f"; {self.hint}" if self.hint else "")


class Misconfigured(MigletError):
    """The configuration cannot be used; every mistake is listed, not the first."""

    category = "misconfig"

    def __init__(self, faults: list[Fault], exit_status: int = MISCONFIGURED) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
        self.exit_status = exit_status


#: What the operating system says when something is used up: it may pass.
NO_ROOM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)


class NoRoom(MigletError):
    """No space in the runtime folder, or no memory or descriptors on the machine."""

    category = "infrastructure"
    exit_status = UNAVAILABLE
    hint = "make room in the file system of paths.runtime; MIGlet is started again"


def status_after(error: OSError) -> int:
    """The exit status when `error` keeps MIGlet from starting.

    A full file system is no mistake of the configuration: the service manager tries
    again.
    """
    return UNAVAILABLE if error.errno in NO_ROOM else MISCONFIGURED


class ControllerError(MigletError):
    """A request to the controller did not lead to a usable answer."""

    #: Which request failed, e.g. ``POST https://controller.example/…/events``.
    target = ""

    def __str__(self) -> str:
        reason = super().__str__()
        return f"{self.target} failed: {reason}" if self.target else reason


class ControllerUnreachable(ControllerError):
    """No answer, or one that says "later": a timeout, 408, 429, any 5xx."""

    transient = True
    category = "transient"
    exit_status = UNAVAILABLE

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        #: Seconds the controller asked for, clamped to 1..300; None: it did not ask.
        self.retry_after = retry_after


class BadAnswer(ControllerUnreachable):
    """An answer that is not what the contract says; names the field."""


class BadRegistration(BadAnswer):
    """A registration token came with labels or a group that cannot be registered."""

    category = "permanent"
    exit_status = REFUSED
    hint = "correct what the controller answers to the request for a registration token"


class Unauthenticated(ControllerError):
    """401, also with the credential read anew: ours is not accepted (yet)."""

    transient = True
    category = "infrastructure"
    exit_status = REFUSED


class Refused(ControllerError):
    """The controller understood and said no (403, 404 and other 4xx)."""

    exit_status = REFUSED

    def __init__(self, reason: str, status: int, answer: str = "") -> None:
        super().__init__(reason)
        #: The HTTP status.
        self.status = status
        #: The beginning of the answer's body, redacted.
        self.answer = answer


class CredentialUnusable(ControllerError):
    """The token or certificate file is missing, empty or unreadable just now."""

    transient = True
    category = "infrastructure"
    exit_status = MISCONFIGURED


class RunnerError(MigletError):
    """The runner cannot be registered or started."""


class JournalUnusable(MigletError):
    """The journal can neither be opened nor replaced."""

    category = "infrastructure"


class BadMessage(MigletError):
    """A queue or socket carried something that is not a message."""
