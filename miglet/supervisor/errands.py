"""Short-lived children: what needs heavy imports is done in one, and they end with it.

An errand is forked, reports facts, and is gone. One that dies or dawdles is answered
for with the fact that was agreed on beforehand, so nobody waits for it in vain.
"""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from miglet.errors import BadMessage
from miglet.messages.codec import Fact
from miglet.supervisor.children import Child
from miglet.supervisor.queues import Queue

log = logging.getLogger(__name__)


@dataclass
class Errand:
    """A child under way."""

    child: Child
    deadline: float
    #: Told when the child ends without having reported a fact of this type.
    otherwise: Fact
    answered: bool = False


class Errands:
    """The errands under way; the arbiter owns the selector and the inbox."""

    def __init__(self, selector: selectors.BaseSelector, inbox: deque[Fact]) -> None:
        self._selector = selector
        self._inbox = inbox
        self._errands: list[Errand] = []

    def send(
        self, name: str, main: Callable[[Queue], None], limit: float, otherwise: Fact
    ) -> None:
        """Fork a child for `main`, which has `limit` seconds."""
        try:
            child = Child(name, main)
        except OSError as error:
            log.error("cannot fork %s: %s", name, error)
            self._inbox.append(otherwise)
            return
        self.follow(child, limit, otherwise)

    def follow(
        self, child: Child, limit: float, otherwise: Fact, answered: bool = False
    ) -> None:
        """Follow a child that was forked before, and perhaps has answered already."""
        errand = Errand(child, time.monotonic() + limit, otherwise, answered)
        self._errands.append(errand)
        self._selector.register(
            child.sentinel, selectors.EVENT_READ, lambda: self._bury(errand)
        )
        self._selector.register(
            child.queue, selectors.EVENT_READ, lambda: self._hear(errand)
        )

    def under_way(self, name: str) -> bool:
        """Whether such an errand has not come back yet."""
        return any(errand.child.name == name for errand in self._errands)

    def check(self, now: float) -> None:
        """Kill who dawdles."""
        for errand in self._errands:
            if now >= errand.deadline:
                log.error("%s takes too long", errand.child.name)
                errand.child.signal(signal.SIGKILL)

    def stop(self) -> None:
        """Nobody waits for an answer any more."""
        for errand in list(self._errands):
            errand.child.signal(signal.SIGKILL)
            self._bury(errand)

    def _hear(self, errand: Errand) -> None:
        if errand not in self._errands:
            return
        try:
            heard = errand.child.queue.drain()
        except BadMessage:
            self._deafen(errand)
            return
        for fact in heard:
            if isinstance(fact, Fact):
                errand.answered |= type(fact) is type(errand.otherwise)
                self._inbox.append(fact)

    def _deafen(self, errand: Errand) -> None:
        if errand.child.queue in self._selector.get_map():
            self._selector.unregister(errand.child.queue)

    def _bury(self, errand: Errand) -> None:
        if errand not in self._errands:
            return
        self._hear(errand)
        self._deafen(errand)
        self._selector.unregister(errand.child.sentinel)
        self._errands.remove(errand)
        how = errand.child.bury()
        if not errand.answered:
            log.error("%s ended without an answer (%s)", errand.child.name, how)
            self._inbox.append(errand.otherwise)
