"""Asks the controller for commands and passes them on, unexamined.

It holds nothing that could be lost: a command that dies with it is handed out again,
and the arbiter knows which ones it has seen.
"""

from __future__ import annotations

import logging
import random
import signal
import time
from collections import deque

from miglet.config.settings import Settings
from miglet.controller.client import Client
from miglet.controller.retry import Backoff
from miglet.errors import ControllerError
from miglet.events import Identity
from miglet.facts import ControllerFailed
from miglet.forms import received
from miglet.workers.base import SILENCE_MARGIN, Worker

#: Most seconds until the first poll: machines that boot together do not ask together.
FIRST_PHASE_SECONDS = 1.0

#: Command ids that the poller remembers, to tell a new answer from a repeated one.
REMEMBERED = 256

log = logging.getLogger(__name__)


class CommandPoller(Worker):
    """Long-polls, or polls a controller that does not know what a long poll is."""

    name = "command-poller"

    def __init__(self, settings: Settings, identity: Identity) -> None:
        super().__init__(settings, identity)
        self._client = Client(settings.controller, identity.vm_id)
        self._seen: deque[str] = deque(maxlen=REMEMBERED)
        self._started = False

    def open(self) -> None:
        """Nothing is asked yet."""
        self._backoff = self._new_backoff()

    def take_over_signals(self) -> None:
        """SIGTERM ends it in the middle of a long poll: there is nothing to finish."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def changed(self, before: Settings) -> None:
        """The next poll is made at once, with the new settings."""
        self._client.apply(self.settings.controller)
        self._backoff = self._new_backoff()

    def work(self) -> None:
        """One poll."""
        if not self._started:
            self._started = True
            interval = min(
                FIRST_PHASE_SECONDS, self.settings.controller.command_interval
            )
            self.period = random.uniform(0.0, interval)
            return
        controller = self.settings.controller
        self.pulse(controller.command_wait + controller.timeout + SILENCE_MARGIN)
        began = time.monotonic()
        try:
            commands = self._client.commands(
                controller.command_wait, self.identity.trace_id
            )
        except ControllerError as error:
            self._failed(error)
        else:
            self._backoff.reset()
            self.period = self._pause(commands, time.monotonic() - began)

    def _pause(self, commands: list[object], took: float) -> float:
        """Pass the commands on; seconds until the next poll."""
        facts = [received(command) for command in commands]
        news = [fact for fact in facts if not fact.id or fact.id not in self._seen]
        for fact in facts:
            self.report(fact)
        self._seen.extend(fact.id for fact in news)
        controller = self.settings.controller
        waited = controller.command_wait and took >= controller.command_wait / 2
        if news or waited:
            return 0.0
        return controller.command_interval * random.uniform(0.9, 1.1)

    def _failed(self, error: ControllerError) -> None:
        self.period = self._backoff.delay(error)
        log.info("commands: %s; again in %.2f s", error, self.period)
        self.report(
            ControllerFailed("commands", error.category, str(error), self.period)
        )

    def _new_backoff(self) -> Backoff:
        retry = self.settings.controller.retry
        return Backoff(retry.initial_backoff, retry.max_backoff)
