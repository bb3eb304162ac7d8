"""Hands the uplink one event at a time, the oldest, and settles it in the journal."""

from __future__ import annotations

import logging

from miglet.crew import UPLINK
from miglet.facts import EventDelivered, EventRefused
from miglet.orders import DeliverEvent
from miglet.state.journal import Journal
from miglet.supervisor import Supervisor

log = logging.getLogger(__name__)


class Uplink:
    """What the heartbeat-sender has in hand, as the arbiter knows it."""

    def __init__(self, journal: Journal, supervisor: Supervisor) -> None:
        self._journal = journal
        self._supervisor = supervisor
        self._in_hand: int | None = None
        #: Who has it: a worker may have got its first event before it is welcomed.
        self._holder: int | None = None

    def offer(self) -> bool:
        """Give it the oldest event unless it is busy; whether nothing is left."""
        if self._in_hand is not None:
            return False
        event = self._journal.oldest()
        if event is None:
            return True
        self._in_hand = event["sequence"]
        self._supervisor.tell(UPLINK, DeliverEvent(event))
        self._holder = self._supervisor.pid_of(UPLINK)
        return False

    def renew(self, pid: int) -> None:
        """A new heartbeat-sender has nothing in hand but what it was given itself."""
        if pid != self._holder:
            self._in_hand = None

    def delivered(self, fact: EventDelivered) -> None:
        """The controller has it."""
        self._journal.delivered(fact.sequence)
        self._settle(fact.sequence)

    def refused(self, fact: EventRefused) -> None:
        """The controller will never have it."""
        log.error("%s refused: %d %s", fact.type, fact.status, fact.answer)
        self._journal.refused(fact.sequence, fact.status, fact.answer)
        self._settle(fact.sequence)

    def _settle(self, sequence: int) -> None:
        if sequence == self._in_hand:
            self._in_hand = None
