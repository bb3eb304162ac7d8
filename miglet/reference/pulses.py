"""Which machines still show signs of life: computed when asked, never stored.

Only monotonic time counts, and only what this process saw: after a restart of the
controller every machine has its three heartbeats to be heard again.
"""

from __future__ import annotations

#: Heartbeats a machine may miss before it is unhealthy.
MOST_MISSED = 3

#: Agents spread each period by ten percent, so a beat may be that late.
JITTER = 1.1


class Pulses:
    """When each machine was last heard, on the monotonic clock."""

    def __init__(self, interval_seconds: float, now: float) -> None:
        self.interval_seconds = interval_seconds
        self._started = now
        self._last: dict[str, float] = {}

    def felt(self, vm_id: str, now: float) -> None:
        """The machine's heartbeat arrived."""
        self._last[vm_id] = now

    def met(self, vm_id: str, now: float) -> None:
        """The machine called for something else: its first beat is due from now on."""
        self._last.setdefault(vm_id, now)

    def missed(self, vm_id: str, now: float) -> int:
        """How many heartbeats were due since the last one and did not come."""
        silent = now - self._last.get(vm_id, self._started)
        return int(silent / (self.interval_seconds * JITTER))


def health(missed: int, ended: bool) -> str:
    """`healthy`, `unhealthy`, or `gone`: silent, as it had announced."""
    if missed < MOST_MISSED:
        return "healthy"
    return "gone" if ended else "unhealthy"
