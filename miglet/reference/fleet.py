"""What the calls of agents and of operators share: one database and its attendants."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from miglet.reference.store import CommandQueue, Store, Views
from miglet.reference.tokens import TokenFile


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


@dataclass(frozen=True)
class TokenSource:
    """Where runners' tokens come from: files, handed out one line after the other."""

    runner_url: str | None = None
    registration: TokenFile | None = None
    removal: TokenFile | None = None


@dataclass(frozen=True)
class Controller:
    """The controller's parts; each says itself what it is for."""

    store: Store
    views: Views
    commands: CommandQueue
    pulses: Pulses
    tokens: TokenSource
    bells: Bells = field(default_factory=Bells)

    def meet(self, vm_id: str) -> None:
        """A machine has called."""
        if not self.views.knows(vm_id):
            self.store.meet(vm_id, time.time())
        self.pulses.met(vm_id, time.monotonic())

    def machine(self, vm_id: str) -> dict[str, Any] | None:
        """A machine with its health as it is now; None: it never called."""
        machine = self.views.machine(vm_id)
        if machine is None:
            return None
        missed = self.pulses.missed(vm_id, time.monotonic())
        ended = self.views.has_ended(vm_id)
        return {**machine, "health": health(missed, ended), "missed_heartbeats": missed}


def controller_on(
    db: sqlite3.Connection,
    tokens: TokenSource,
    heartbeat_interval_seconds: float,
    lease_seconds: float,
) -> Controller:
    """A controller that keeps everything in `db`."""
    return Controller(
        store=Store(db),
        views=Views(db),
        commands=CommandQueue(db, lease_seconds),
        pulses=Pulses(heartbeat_interval_seconds, time.monotonic()),
        tokens=tokens,
    )


def event_topic(vm_id: str) -> str:
    """The bell that rings when an event of the machine was stored."""
    return f"events of {vm_id}"


def command_topic(vm_id: str) -> str:
    """The bell that rings when a command for the machine was queued."""
    return f"commands for {vm_id}"
