"""The main loop of every worker, written once.

`__init__` runs in the arbiter's process and opens nothing; all the rest runs in the
worker's own. `work` makes one attempt and returns: a worker never sleeps but here.
"""

from __future__ import annotations

import math
import selectors
import signal
import time
from collections.abc import Callable
from typing import Any, ClassVar

from miglet import logger
from miglet.config.settings import Settings
from miglet.controller.client import Client
from miglet.http.retry import Backoff
from miglet.messages.codec import Fact, Message
from miglet.messages.events import Identity
from miglet.messages.facts import LONGEST_LIVENESS_TIMEOUT, LivenessPing
from miglet.messages.orders import ApplySettings, FollowJob, SetLevel, Stop
from miglet.supervisor import privileges
from miglet.supervisor.failpoints import reach
from miglet.supervisor.memory import MemoryTimer
from miglet.supervisor.queues import Queue, QueueClosed
from miglet.supervisor.signals import SignalPipe

#: Seconds on top of what a call may take until its worker counts as unresponsive.
LIVENESS_MARGIN = 5.0

#: Seconds after a liveness ping from which the next goes with whatever else wakes the
#: worker: a ping of its own would cost another wake-up.
PING_SECONDS = 1.5

#: Seconds after a liveness ping at which the worker wakes for the next one. Two are due
#: before a silent worker counts as hung.
LATEST_PING_SECONDS = 2.4


class Worker:
    """A process that does one thing, periodically, until it is ordered to stop."""

    #: Its name in ``status``, in logs, and in the orders that it obeys.
    name: ClassVar[str]

    #: The user that it becomes; empty: it keeps root's rights.
    user: ClassVar[str]

    #: The types of the facts that it may send; the parent kills it for any other.
    facts: ClassVar[frozenset[type[Fact]]] = frozenset()

    #: What it does with each order, besides the ones that every worker knows.
    orders: ClassVar[dict[type[Message], Callable[[Any, Any], None]]] = {}

    def __init__(self, settings: Settings, identity: Identity) -> None:
        self.settings = settings
        self.identity = identity
        #: Seconds from one `work` to the next; `work` may change it.
        self.period = 1.0
        self._due = 0.0
        self._pinged = 0.0
        #: The timeout that the last liveness ping asked for; 0: the usual one.
        self._extended = 0.0
        self._stop_requested = False
        self._memory_timer = MemoryTimer()

    def __call__(self, queue: Queue) -> None:
        """The worker's life; QueueClosed (the parent is gone) ends it quietly."""
        self._queue = queue
        self._selector = selectors.DefaultSelector()
        self.listen(queue, self._obey)
        self.take_over_signals()
        self._lower_privileges()
        try:
            self.ping()
            reach(f"{self.name}.opening")
            self.open()
            self._serve()
            self.close()
        except QueueClosed:
            return

    def _serve(self) -> None:
        self._due = time.monotonic()
        while not self._stop_requested:
            now = time.monotonic()
            # Also between two long polls, each of which ends with a ping.
            self._memory_timer.release_if_due(now)
            if now >= self._pinged + PING_SECONDS:
                self.ping()
            if now >= self._due:
                self._due = math.inf
                self.work()
                self._due = min(self._due, time.monotonic() + self.period)
            if self._extended:
                # The slow call returned: restore the usual liveness timeout.
                self.ping()
            wake = min(self._due, self._pinged + LATEST_PING_SECONDS)
            wait = max(0.0, wake - time.monotonic())
            for key, _ in self._selector.select(wait):
                key.data()

    def open(self) -> None:
        """Open what the worker needs; the first thing in its own process."""

    def work(self) -> None:
        """One attempt at the worker's work."""

    def close(self) -> None:
        """Leave in order; not called when the worker dies."""

    def changed(self, before: Settings) -> None:
        """The settings are not what they were; `self.settings` is new."""

    def take_over_signals(self) -> None:
        """SIGTERM is heard in the loop."""
        pipe = SignalPipe((signal.SIGTERM,))
        self.listen(pipe, lambda: self._stop_if(pipe.drain()))

    def listen(self, source: Any, handler: Callable[[], None]) -> None:
        """Call `handler` whenever `source` (a descriptor or its owner) is readable."""
        self._selector.register(source, selectors.EVENT_READ, handler)

    def ignore(self, source: Any) -> None:
        """Undo `listen`."""
        self._selector.unregister(source)

    def report(self, fact: Fact) -> None:
        """Send a fact to the arbiter."""
        assert type(fact) in self.facts, f"{self.name} does not declare {fact!r:.100}"
        self._queue.put(fact)

    def ping(self, timeout_seconds: float = 0.0) -> None:
        """Send a liveness ping, with the timeout that the next step needs."""
        self._pinged = time.monotonic()
        self._extended = timeout_seconds
        self._queue.put(LivenessPing(min(timeout_seconds, LONGEST_LIVENESS_TIMEOUT)))

    def work_soon(self) -> None:
        """Let `work` come as soon as the loop comes round."""
        self._due = 0.0

    def _obey(self) -> None:
        for order in self._queue.receive():
            obey = COMMON.get(type(order)) or self.orders[type(order)]
            obey(self, order)

    def _stop_if(self, heard: list[str]) -> None:
        self._stop_requested = self._stop_requested or bool(heard)

    def _stop(self, order: Stop) -> None:
        self._stop_requested = True

    def _apply(self, order: ApplySettings) -> None:
        before, self.settings = self.settings, Settings.of(order.settings)
        logger.set_redaction(self.settings.logging.redact_secrets)
        self.changed(before)
        self.work_soon()

    def _set_level(self, order: SetLevel) -> None:
        logger.set_level(order.level)

    def _name_job(self, order: FollowJob) -> None:
        logger.set_job(order.job_id, order.run_id, order.trace_id)

    def _lower_privileges(self) -> None:
        if self.user:
            privileges.become(self.user)


class ControllerWorker(Worker):
    """A worker that calls the controller, and backs off after calls that failed."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        client: Client | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(settings, identity)
        self._client = client or Client(settings.controller, identity.vm_id)
        self._now = now
        self._backoff = self._new_backoff()

    def changed(self, before: Settings) -> None:
        """Calls that follow are made with the new settings, and wait as these say."""
        self._client.apply(self.settings.controller)
        self._backoff = self._new_backoff()

    def _new_backoff(self) -> Backoff:
        retry = self.settings.controller.retry
        return Backoff(retry.initial_backoff, retry.max_backoff)


#: The orders that every worker knows.
COMMON: dict[type[Message], Callable[[Worker, Any], None]] = {
    Stop: Worker._stop,
    ApplySettings: Worker._apply,
    SetLevel: Worker._set_level,
    FollowJob: Worker._name_job,
}
