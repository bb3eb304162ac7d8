"""What came of `config.sh`: its exit code, output and files, told as one outcome.

Pure: the tables are in `reasons`, and nothing in here looks at the machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from miglet.redaction import redact
from miglet.runner.installation import REGISTRATION_FILES
from miglet.runner.registration_errors import (
    ANSWERED,
    BUSY,
    INCOMPLETE,
    KILLED,
    LOST,
    REFUSED,
    SAID,
    SERVER_ERROR,
    SHELL,
    STATUS_NAMES,
    STATUSES,
    TROUBLE,
    UNKNOWN,
    Next,
    Reason,
)

MESSAGE_CHARACTERS = 500


class Outcome(NamedTuple):
    """How an attempt to register, or to remove the registration, went."""

    kind: str
    #: The wire name of the error category; empty when nothing went wrong.
    category: str
    #: What config.sh said, redacted.
    message: str
    #: What a person can do about it.
    hint: str
    next: Next

    @property
    def good(self) -> bool:
        """Whether it did what it was asked to."""
        return self.next is Next.GO_ON


def interpret(exit_code: int | None, output: str, files: Collection[str]) -> Outcome:
    """What came of `config.sh` configuring the runner.

    `exit_code` as a shell tells it, None when nobody saw it; `files` are those of
    REGISTRATION_FILES that exist now. Only all of them and a 0 are a registration.
    """
    if exit_code != 0:
        return failed(reason_for(exit_code, output), output)
    if set(REGISTRATION_FILES) <= set(files):
        return Outcome("registered", "", "the runner is registered", "", Next.GO_ON)
    return failed(INCOMPLETE, output)


def interpret_removal(exit_code: int | None, output: str) -> Outcome:
    """What came of `config.sh remove`; a runner that was gone already is removed."""
    if exit_code == 0:
        return Outcome("removed", "", "the runner is removed", "", Next.GO_ON)
    reason = reason_for(exit_code, output)
    return failed(BUSY if last_status(output) == 422 else reason, output)


def reason_for(exit_code: int | None, output: str) -> Reason:
    """Why it failed: what it said for sure, what GitHub said, what may be guessed."""
    return (
        fitting(SAID, output)
        or answered(last_status(output))
        or SHELL.get(exit_code or 0)
        or fitting(TROUBLE, output)
        or ended(exit_code)
    )


def fitting(table: tuple[tuple[str, Reason], ...], output: str) -> Reason | None:
    """The first row whose pattern is in the output."""
    return next((reason for said, reason in table if re.search(said, output)), None)


def last_status(output: str) -> int | None:
    """The HTTP status of the last request that failed."""
    found = [number or name for number, name in STATUSES.findall(output)]
    if not found:
        return None
    return int(found[-1]) if found[-1].isdecimal() else STATUS_NAMES.get(found[-1], 400)


def answered(status: int | None) -> Reason | None:
    """What a status means."""
    if status is None:
        return None
    return ANSWERED.get(status, SERVER_ERROR if status >= 500 else REFUSED)


def ended(exit_code: int | None) -> Reason:
    """What the exit code alone means."""
    if exit_code is None:
        return LOST
    return KILLED if exit_code > 128 else UNKNOWN


def failed(reason: Reason, output: str) -> Outcome:
    """The outcome for `reason`, in config.sh's own last words."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    message = redact(lines[-1])[:MESSAGE_CHARACTERS] if lines else "it said nothing"
    return Outcome(reason.kind, reason.category, message, reason.hint, reason.next)
