"""Waking long polls: who waits for a topic is woken when it rings.

Everything runs in one event loop, so nothing can ring between a look and a wait as
long as no ``await`` stands between the two.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict


class Bells:
    """One bell a topic; after `close` nobody waits any more."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    async def wait(self, topic: str, seconds: float) -> None:
        """Until `topic` rings, `seconds` are over or the bells are closed."""
        if self.closed:
            return
        rung = asyncio.get_running_loop().create_future()
        self._waiting[topic].add(rung)
        try:
            await asyncio.wait({rung}, timeout=seconds)
        finally:
            self._leave(topic, rung)

    def ring(self, topic: str) -> None:
        """Wake everybody who waits for `topic`."""
        for rung in self._waiting.pop(topic, ()):
            rung.set_result(None)

    def close(self) -> None:
        """Wake everybody, for good: the controller ends."""
        self.closed = True
        for topic in list(self._waiting):
            self.ring(topic)

    def _leave(self, topic: str, rung: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(topic, set())
        waiting.discard(rung)
        if not waiting:
            self._waiting.pop(topic, None)
