"""What the calls of agents and operators share: notifications, liveness, the parts."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from miglet.reference.store import CommandQueue, Queries, Store
from miglet.reference.tokens import TokenFile


class Notifier:
    """Wakes waiting requests by topic; after `close` nobody waits any more."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    async def wait(self, topic: str, seconds: float) -> None:
        """Return when `topic` is notified, after `seconds`, or once closed."""
        if self.closed:
            return
        notified = asyncio.get_running_loop().create_future()
        self._waiting[topic].add(notified)
        try:
            await asyncio.wait({notified}, timeout=seconds)
        finally:
            self._leave(topic, notified)

    def notify(self, topic: str) -> None:
        """Wake all who wait for `topic`."""
        for notified in self._waiting.pop(topic, ()):
            notified.set_result(None)

    def close(self) -> None:
        """Wake all, for good: the controller ends."""
        self.closed = True
        for topic in list(self._waiting):
            self.notify(topic)

    def _leave(self, topic: str, notified: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(topic, set())
        waiting.discard(notified)
        if not waiting:
            self._waiting.pop(topic, None)


#: Heartbeats a machine may miss before it is unhealthy.
MAX_MISSED = 3

#: Agents spread each period by ten percent, so a heartbeat may be that late.
JITTER = 1.1

#: No machine is unhealthy before it was silent for so many seconds.
MINIMUM_SILENCE_SECONDS = 60.0


class Liveness:
    """When each machine was last heard, on the monotonic clock.

    `interval_seconds` is that of a machine whose heartbeats do not name their own.
    """

    def __init__(
        self,
        interval_seconds: float,
        now: float,
        minimum_silence_seconds: float = MINIMUM_SILENCE_SECONDS,
    ) -> None:
        self._default_interval = interval_seconds
        self._shortest_period = minimum_silence_seconds / MAX_MISSED
        self._started = now
        self._last: dict[str, float] = {}
        self._intervals: dict[str, float] = {}

    def record_heartbeat(
        self, vm_id: str, now: float, interval_seconds: float | None = None
    ) -> None:
        """The machine's heartbeat arrived; the next is due after the interval."""
        self._last[vm_id] = now
        if interval_seconds:
            self._intervals[vm_id] = interval_seconds

    def record_call(self, vm_id: str, now: float) -> None:
        """The machine called: its first heartbeat is due from now on."""
        self._last.setdefault(vm_id, now)

    def missed(self, vm_id: str, now: float) -> int:
        """How many heartbeats were due since the last one and did not come."""
        silent = now - self._last.get(vm_id, self._started)
        interval = self._intervals.get(vm_id, self._default_interval) * JITTER
        return int(silent / max(interval, self._shortest_period))


def health(missed: int, ended: bool) -> str:
    """`gone` once the machine sent VMStopped, else `healthy` or `unhealthy`."""
    if ended:
        return "gone"
    return "healthy" if missed < MAX_MISSED else "unhealthy"


@dataclass(frozen=True)
class TokenSource:
    """Where runners' tokens come from: files, handed out one line after the other."""

    runner_url: str | None = None
    registration: TokenFile | None = None
    removal: TokenFile | None = None


@dataclass(frozen=True)
class Controller:
    """The controller's parts."""

    store: Store
    queries: Queries
    commands: CommandQueue
    liveness: Liveness
    tokens: TokenSource
    notifier: Notifier = field(default_factory=Notifier)

    def meet(self, vm_id: str) -> None:
        """A machine has called, perhaps for the first time."""
        if not self.queries.knows(vm_id):
            self.store.meet(vm_id, time.time())
        self.liveness.record_call(vm_id, time.monotonic())

    def machine(self, vm_id: str) -> dict[str, Any] | None:
        """A machine with its health as it is now; None: it never called."""
        machine = self.queries.machine(vm_id)
        if machine is None:
            return None
        missed = self.liveness.missed(vm_id, time.monotonic())
        ended = self.queries.has_ended(vm_id)
        return {**machine, "health": health(missed, ended), "missed_heartbeats": missed}


def controller_on(
    db: sqlite3.Connection,
    tokens: TokenSource,
    heartbeat_interval_seconds: float,
    lease_seconds: float,
    minimum_silence_seconds: float = MINIMUM_SILENCE_SECONDS,
) -> Controller:
    """A controller that keeps everything in `db`."""
    return Controller(
        store=Store(db),
        queries=Queries(db),
        commands=CommandQueue(db, lease_seconds),
        liveness=Liveness(
            heartbeat_interval_seconds, time.monotonic(), minimum_silence_seconds
        ),
        tokens=tokens,
    )


def event_topic(vm_id: str) -> str:
    """The topic that is notified when an event of the machine was stored."""
    return f"events of {vm_id}"


def command_topic(vm_id: str) -> str:
    """The topic that is notified when a command for the machine was queued."""
    return f"commands for {vm_id}"
