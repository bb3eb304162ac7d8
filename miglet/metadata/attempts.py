"""How often a metadata server is asked, and what it means when it does not answer."""

from __future__ import annotations

import random
import time

from miglet.errors import UNAVAILABLE, MigletError
from miglet.messages.codec import Value, frozen_value

#: Statuses that say "not now", besides every 5xx.
LATER = {408, 410, 425, 429}


class MetadataUnavailable(MigletError):
    """The metadata server gave no usable answer; it may later."""

    transient = True
    category = "infrastructure"
    exit_status = UNAVAILABLE
    hint = "is the metadata server enabled and reachable from this machine?"

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        #: Seconds that the server asked for, 1..300; None: it did not ask.
        self.retry_after = retry_after


class MetadataRefused(MetadataUnavailable):
    """The server answered, and will answer the same again."""

    transient = False


class MetadataForbidden(MetadataRefused):
    """403: this machine may not read metadata."""

    hint = "enable the instance metadata service for this machine"


#: Seconds that the first pause between two tries is at most; it doubles.
FIRST_PAUSE_SECONDS = 0.5


@frozen_value
class Limits(Value):
    """How often, and for how many seconds, a metadata server is asked."""

    #: One try, whole; a third of it may go into the connection.
    attempt_seconds: float = 3.0
    tries: int = 5
    shortest_pause_seconds: float = 0.2
    longest_pause_seconds: float = 2.0
    #: Everything that a start asks.
    overall_seconds: float = 20.0

    def deadline(self) -> float:
        """The monotonic time at which all of it has to be over, from now."""
        return time.monotonic() + self.overall_seconds

    def pause(self, failures: int) -> float:
        """Seconds until the next try, at random: a fleet boots together."""
        growing = FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1)
        most = min(self.longest_pause_seconds, growing)
        return random.uniform(self.shortest_pause_seconds, most)
