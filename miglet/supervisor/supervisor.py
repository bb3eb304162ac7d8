"""Starts the workers, receives their facts, reaps and restarts them.

Nobody else knows a worker's pid. A dead worker is restarted: immediately the first
times, then with a growing back-off, and for as long as it is wanted. A worker that
sends anything but the facts that it declares is killed, and nothing that it sent after
them is believed.
"""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from miglet.errors import BadMessage
from miglet.messages.codec import Fact, Order, Value, frozen_value
from miglet.messages.facts import (
    FaultNoted,
    LivenessPing,
    WorkerLost,
    WorkerRecovered,
    WorkerStarted,
)
from miglet.messages.orders import Stop
from miglet.supervisor.children import Child, reap_abandoned
from miglet.supervisor.queues import Queue, QueueClosed

#: Seconds before the restart after the 1st, 2nd, … death in a row.
BACKOFF_SECONDS = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

#: Messages that a dead worker can have left in its socket; the kernel holds fewer.
LEFT_BEHIND = 4096

log = logging.getLogger(__name__)


@frozen_value
class Limits(Value):
    """When a worker counts as unresponsive, as lost, and as healthy again."""

    #: Seconds without a message after which a worker is hung, unless it asked for more.
    liveness_timeout: float = 5.0
    #: Seconds between SIGABRT (for a stack trace) and SIGKILL for a hung worker.
    abort: float = 2.0
    #: Seconds after SIGKILL until a worker that does not die is replaced.
    kill: float = 5.0
    #: Seconds that a worker must live for its earlier deaths to be forgotten.
    stable: float = 10.0
    #: Deaths in a row after which a worker is reported as lost, and reported again.
    deaths: int = 5
    #: Seconds that the parent's own loop may be late before workers get that time back.
    late: float = 1.0


@dataclass
class WorkerSlot:
    """One worker by its name, and the process that is this worker at the moment."""

    name: str
    main: Callable[[Queue], None]
    #: The types of the facts that it may send.
    facts: frozenset[type[Fact]]
    child: Child | None = None
    deaths: int = 0
    restarts: int = 0
    lost: bool = False
    #: Whether it was ordered to stop and is not to be restarted.
    stopped: bool = False
    started: float = 0.0
    #: When the next child is forked, while there is none.
    due: float = 0.0
    #: When an unresponsive child gets the next signal, while there is one.
    deadline: float = 0.0
    last_seen: float = 0.0
    #: The last signal that the liveness check sent to the child.
    sent: signal.Signals | None = None

    def health(self, now: float) -> dict[str, Any]:
        """What ``status`` says of the worker."""
        return {
            "pid": self.child.pid if self.child else None,
            "healthy": bool(self.child) and self.sent is None and not self.lost,
            "restarts": self.restarts,
            "last_seen_seconds": (
                round(now - self.last_seen, 3) if self.last_seen else None
            ),
        }


class Supervisor:
    """Keeps the workers running; the arbiter owns the outer selector and the inbox."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        inbox: deque[Fact],
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._limits = limits
        #: The workers' descriptors alone, so that `stop` waits for nothing else.
        self._selector = selectors.EpollSelector()
        selector.register(self._selector, selectors.EVENT_READ, self.serve)
        self._inbox = inbox
        self._slots: dict[str, WorkerSlot] = {}
        self._checked = time.monotonic()

    def start(
        self,
        name: str,
        main: Callable[[Queue], None],
        facts: Iterable[type[Fact]],
    ) -> None:
        """Start a worker that may send `facts`, and restart it until it is stopped."""
        self._slots[name] = WorkerSlot(name, main, frozenset({LivenessPing, *facts}))
        self._fork(self._slots[name])

    def send(self, name: str, order: Order) -> None:
        """Send an order; it is lost when the worker is just dead.

        A worker whose queue stays full hangs, and is killed.
        """
        slot = self._slots.get(name)
        if slot is None or slot.child is None:
            return
        try:
            slot.child.queue.post(order)
        except BadMessage as error:
            log.warning("%s does not take orders: %s", name, error)
            slot.child.signal(signal.SIGKILL)

    def broadcast(self, order: Order) -> None:
        """Send an order that every worker knows."""
        for name in self._slots:
            self.send(name, order)

    def stop_workers(self, names: Iterable[str]) -> None:
        """Ask these workers to stop; they are not restarted."""
        for name in names:
            slot = self._slots.get(name)
            if slot is None or slot.stopped:
                continue
            slot.stopped = True
            self.send(name, Stop())
            if slot.child:
                slot.child.signal(signal.SIGTERM)

    def stop(self, grace: float) -> None:
        """Ask all workers to stop, wait once for all of them, then kill."""
        self.stop_workers(list(self._slots))
        deadline = time.monotonic() + grace
        while self._running() and time.monotonic() < deadline:
            self.serve(max(0.0, deadline - time.monotonic()))
        for slot in self._running():
            assert slot.child
            slot.child.signal(signal.SIGKILL)
        for slot in self._running():
            self._reap(slot)

    def serve(self, timeout_seconds: float = 0.0) -> None:
        """Receive facts and reap the dead; waits for at most `timeout_seconds`."""
        for key, _ in self._selector.select(timeout_seconds):
            callback, slot = key.data
            callback(slot)

    def check(self, now: float) -> None:
        """Fork who is due, kill who is unresponsive; call it at least once a second."""
        late = max(0.0, now - self._checked - self._limits.late)
        self._checked = now
        for slot in list(self._slots.values()):
            if slot.child is None:
                if not slot.stopped and now >= slot.due:
                    self._fork(slot)
                continue
            slot.deadline += late
            self._check_liveness(slot, now)
        reap_abandoned()

    def next_due(self) -> float | None:
        """When `check` has something to fork; None if no worker is missing."""
        waiting = [
            slot.due
            for slot in self._slots.values()
            if slot.child is None and not slot.stopped
        ]
        return min(waiting, default=None)

    def health(self) -> dict[str, dict[str, Any]]:
        """What ``status`` says of each worker."""
        now = time.monotonic()
        return {name: slot.health(now) for name, slot in self._slots.items()}

    def healthy(self, names: Iterable[str]) -> bool:
        """Whether none of these is lost: dead again and again, and still wanted."""
        slots = [self._slots[name] for name in names if name in self._slots]
        return not any(slot.lost and not slot.stopped for slot in slots)

    def pid_of(self, name: str) -> int | None:
        """The pid of a worker; None while there is none."""
        slot = self._slots.get(name)
        return slot.child.pid if slot and slot.child else None

    def _running(self) -> list[WorkerSlot]:
        return [slot for slot in self._slots.values() if slot.child]

    def _fork(self, slot: WorkerSlot) -> None:
        now = time.monotonic()
        try:
            slot.child = Child(slot.name, slot.main, slot.facts)
        except OSError as error:
            self._schedule_restart(slot, now, f"cannot fork: {error}")
            return
        slot.started, slot.last_seen = now, 0.0
        slot.deadline = now + self._limits.liveness_timeout
        slot.sent = None
        read = selectors.EVENT_READ
        self._selector.register(slot.child.queue, read, (self._receive, slot))
        self._selector.register(slot.child.sentinel, read, (self._reap, slot))
        pid = slot.child.pid
        self._inbox.append(WorkerStarted(slot.name, pid, slot.restarts, slot.deaths))

    def _receive(self, slot: WorkerSlot) -> None:
        """Take what the worker has sent; a violation of the protocol kills it."""
        if slot.child is None:
            return
        try:
            for fact in slot.child.receive():
                self._accept(slot, fact)
            slot.child.queue.flush()
        except QueueClosed:
            slot.child.signal(signal.SIGKILL)
            self._unregister_queue(slot)
        except BadMessage as error:
            slot.child.signal(signal.SIGKILL)
            self._unregister_queue(slot)
            self._report_violation(slot, error)

    def _accept(self, slot: WorkerSlot, fact: Fact) -> None:
        now = time.monotonic()
        slot.last_seen = now
        if isinstance(fact, LivenessPing):
            slot.deadline = now + max(
                self._limits.liveness_timeout, fact.timeout_seconds
            )
            self._reset_deaths(slot, now)
        else:
            self._inbox.append(fact)

    def _report_violation(self, slot: WorkerSlot, error: BadMessage) -> None:
        log.error("%s was killed for what it sent: %s", slot.name, error)
        self._inbox.append(
            FaultNoted(
                category="infrastructure",
                code="protocol_violation",
                message=f"{slot.name} was killed for what it sent: {error}",
                component=slot.name,
                hint="a defect, or an attack on this worker: see MIGlet's log",
            )
        )

    def _reset_deaths(self, slot: WorkerSlot, now: float) -> None:
        """Start the count of deaths again for a worker that has been stable."""
        if not slot.deaths or now - slot.started < self._limits.stable:
            return
        slot.deaths = 0
        if slot.lost:
            slot.lost = False
            self._inbox.append(WorkerRecovered(slot.name))

    def _check_liveness(self, slot: WorkerSlot, now: float) -> None:
        """SIGABRT, then SIGKILL, then a successor beside what cannot be killed."""
        if now < slot.deadline or slot.child is None:
            return
        if slot.sent is signal.SIGKILL:
            log.error("%s cannot be killed (pid %d)", slot.name, slot.child.pid)
            self._unregister_queue(slot)
            self._reap(slot)
            return
        slot.sent = signal.SIGKILL if slot.sent else signal.SIGABRT
        log.error("%s is unresponsive: %s", slot.name, slot.sent.name)
        slot.child.signal(slot.sent)
        killed = slot.sent is signal.SIGKILL
        slot.deadline = now + (self._limits.kill if killed else self._limits.abort)

    def _reap(self, slot: WorkerSlot) -> None:
        """Drain the queue, reap the child and schedule its restart."""
        child = slot.child
        if child is None:
            return
        if child.queue in self._selector.get_map():
            self._drain(slot)
        self._unregister_queue(slot)
        self._selector.unregister(child.sentinel)
        slot.child = None
        reason = child.reap()
        if slot.stopped:
            return
        now = time.monotonic()
        if now - slot.started >= self._limits.stable:
            slot.deaths = 0
        self._schedule_restart(slot, now, reason)

    def _drain(self, slot: WorkerSlot) -> None:
        """Take what a dead worker has left in its queue."""
        assert slot.child
        try:
            for fact in slot.child.receive(LEFT_BEHIND):
                self._accept(slot, fact)
        except QueueClosed:
            return
        except BadMessage as error:
            self._report_violation(slot, error)

    def _unregister_queue(self, slot: WorkerSlot) -> None:
        if slot.child and slot.child.queue in self._selector.get_map():
            self._selector.unregister(slot.child.queue)

    def _schedule_restart(self, slot: WorkerSlot, now: float, reason: str) -> None:
        slot.deaths += 1
        slot.restarts += 1
        delay = BACKOFF_SECONDS[min(slot.deaths, len(BACKOFF_SECONDS)) - 1]
        slot.due = now + delay
        log.warning("%s ended (%s); restart in %g s", slot.name, reason, delay)
        if slot.deaths % self._limits.deaths == 0:
            slot.lost = True
            self._inbox.append(WorkerLost(slot.name, slot.deaths, reason))
        if not delay:
            self._fork(slot)
