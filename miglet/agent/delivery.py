"""Hands the heartbeat-sender one event at a time, and records what became of each."""

from __future__ import annotations

import logging
from typing import Any

from miglet.journal.journal import Journal
from miglet.messages.codec import Fact
from miglet.messages.facts import EventDelivered, EventRefused, EventSetAside
from miglet.messages.orders import DeliverEvent
from miglet.supervisor.supervisor import Supervisor
from miglet.workers.registry import UPLINK

log = logging.getLogger(__name__)


class EventDelivery:
    """Which event the heartbeat-sender has, as the arbiter knows it."""

    def __init__(self, journal: Journal, supervisor: Supervisor) -> None:
        self._journal = journal
        self._supervisor = supervisor
        #: The event that the heartbeat-sender was given and has not settled.
        self._in_hand: dict[str, Any] | None = None
        #: Who has it: a worker may have its first event before WorkerStarted.
        self._holder: int | None = None
        #: Sequences of events that were set aside, the oldest first.
        self._aside: list[int] = []
        #: Those of them that were not tried once more yet.
        self._untried: list[int] = []

    def offer(self) -> bool:
        """Give it the oldest event unless it is busy; whether nothing is left."""
        if self._in_hand is not None:
            return False
        order = self._next()
        if order is None:
            return True
        self._in_hand = order.event
        self._supervisor.send(UPLINK, order)
        self._holder = self._supervisor.pid_of(UPLINK)
        return False

    def _next(self) -> DeliverEvent | None:
        """The oldest event; before VMStopped those that were set aside, once each."""
        event = self._journal.oldest(self._aside)
        if event is None:
            return None
        while event["type"] == "VMStopped" and self._untried:
            again = self._journal.pending(self._untried.pop(0))
            if again:
                return DeliverEvent(again, once=True)
        return DeliverEvent(event)

    def renew(self, pid: int) -> None:
        """A new heartbeat-sender has nothing in hand but what it was given itself."""
        if pid != self._holder:
            self._in_hand = None

    def expects(self, fact: Fact) -> bool:
        """Whether the fact is about the event in hand, if about a delivery at all.

        Another one is forged, or a defect: it settles nothing.
        """
        if not isinstance(fact, EventDelivered | EventRefused | EventSetAside):
            return True
        event = self._in_hand or {}
        known = (event.get("sequence"), event.get("type"))
        return (fact.sequence, fact.type) == known

    def record(self, fact: Fact) -> None:
        """Settle the event that the fact is about; other facts change nothing."""
        if isinstance(fact, EventDelivered):
            self._delivered(fact)
        elif isinstance(fact, EventRefused):
            self._refused(fact)
        elif isinstance(fact, EventSetAside):
            self._set_aside(fact)

    def _delivered(self, fact: EventDelivered) -> None:
        self._journal.delivered(fact.sequence)
        self._in_hand = None

    def _refused(self, fact: EventRefused) -> None:
        log.error("%s refused: %d %s", fact.type, fact.status, fact.answer)
        self._journal.refused(fact.sequence, fact.status, fact.answer)
        self._in_hand = None

    def _set_aside(self, fact: EventSetAside) -> None:
        if fact.sequence not in self._aside:
            self._aside.append(fact.sequence)
            self._untried.append(fact.sequence)
        self._in_hand = None
