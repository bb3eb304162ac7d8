"""How far the machine's clock is from the controller's.

Every answer says only between which two bounds the offset lies, since its ``Date``
has no fractions and was written at some time between request and answer. The one
rule: believe the overlap of what all answers said, and start anew when there is none.
"""

from __future__ import annotations

from typing import NamedTuple

from miglet.http.retry import http_date

#: ``Date`` is cut to whole seconds (RFC 9110, 5.6.7).
RESOLUTION_SECONDS = 1.0

#: How far two clocks may drift apart in a second: 100 ppm, more than any quartz.
DRIFT = 1e-4


class Bounds(NamedTuple):
    """The controller's time minus ours, in seconds, as known at `at`."""

    low: float
    high: float
    at: float

    def aged(self, at: float) -> Bounds:
        """What is still certain at `at`: the clocks may have drifted since."""
        drift = DRIFT * abs(at - self.at)
        return Bounds(self.low - drift, self.high + drift, at)

    def narrowed(self, other: Bounds) -> Bounds:
        """What both say; `other` alone if they contradict each other."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Bounds(low, high, other.at) if low <= high else other


class ClockOffset:
    """The best estimate of the controller's time minus ours, from all answers."""

    def __init__(self) -> None:
        self._bounds: Bounds | None = None

    @property
    def seconds(self) -> float | None:
        """The estimate; None before the first answer that had a ``Date``."""
        if self._bounds is None:
            return None
        return (self._bounds.low + self._bounds.high) / 2

    def note(self, date: str | None, sent_at: float, received_at: float) -> None:
        """Learn from an answer's ``Date``; times are our wall clock's."""
        theirs = http_date(date)
        if theirs is None or received_at < sent_at:
            return
        latest = theirs + RESOLUTION_SECONDS - sent_at
        seen = Bounds(theirs - received_at, latest, received_at)
        known = self._bounds or seen
        self._bounds = known.aged(received_at).narrowed(seen)
