"""How often, and for how long, a metadata server is asked.

The one rule: whatever the server does, a start waits no longer than this says.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

#: Seconds that the first pause between two tries is at most; it doubles.
FIRST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Limits:
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
