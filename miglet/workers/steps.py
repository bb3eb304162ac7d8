"""What the runner-watcher's sequences share: what they need of it, how they give up.

A sequence yields the seconds that it wants to wait: the runner-watcher goes on living
in between, and may drop it at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

from miglet.config.settings import Settings
from miglet.controller.client import Client
from miglet.errors import MISCONFIGURED, REFUSED, MigletError, Refused
from miglet.messages.codec import Fact
from miglet.messages.events import Identity
from miglet.messages.facts import RegistrationFailed
from miglet.runner.folder_record import FolderRecord

#: A step yields the seconds until it wants to go on.
Steps = Generator[float, None, None]

#: Seconds between two looks at config.sh.
POLL_SECONDS = 0.03

EXIT_STATUSES = {"misconfig": MISCONFIGURED, "permanent": REFUSED}


class GivenUp(MigletError):
    """No runner can be registered; carries the fact to report."""

    def __init__(self, fact: RegistrationFailed) -> None:
        super().__init__(fact.message)
        self.fact = fact


class StepContext(Protocol):
    """What they need of the runner-watcher."""

    settings: Settings
    identity: Identity
    client: Client
    folder: FolderRecord

    def report(self, fact: Fact) -> None:
        """Tell the arbiter."""

    def extend_liveness(self, seconds: float) -> None:
        """Say that the next step may take so long."""

    def listen(self, source: Any, handler: Callable[[], None]) -> None:
        """Call `handler` whenever `source` is readable."""

    def ignore(self, source: Any) -> None:
        """Undo `listen`."""

    def wake(self) -> None:
        """Let the step under way go on at once."""


def failure_of(error: MigletError) -> RegistrationFailed:
    """An error of ours as the fact that it is."""
    status = EXIT_STATUSES.get(error.category, error.exit_status)
    return RegistrationFailed(
        error.category,
        "registration_refused" if isinstance(error, Refused) else "runner_unusable",
        str(error),
        error.hint,
        status,
    )
