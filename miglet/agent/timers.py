"""Timers by name on the monotonic clock: due once, then forgotten."""

from __future__ import annotations


class Timers:
    """What is due when; the arbiter asks, nobody is called."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def start(self, name: str, due: float) -> None:
        """`name` is due at monotonic time `due`; replaces its namesake."""
        self._due[name] = due

    def stop(self, name: str) -> None:
        """Forget `name`; nothing happens if it is not running."""
        self._due.pop(name, None)

    def next_due(self) -> float | None:
        """When the first one is due; None if none runs."""
        return min(self._due.values(), default=None)

    def take_due(self, now: float) -> list[str]:
        """The names that are due at `now`, in their order; they are forgotten."""
        names = sorted(
            (name for name, due in self._due.items() if due <= now),
            key=lambda name: self._due[name],
        )
        for name in names:
            del self._due[name]
        return names
