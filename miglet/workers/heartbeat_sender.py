"""The one uplink: delivers journalled events in order, sends heartbeats on time.

It keeps nothing on disk. The arbiter hands it the oldest event that is not delivered;
it tries until the controller takes or refuses that one, and reports which.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from typing import Any

from miglet.config.settings import Settings
from miglet.controller.client import Client
from miglet.controller.retry import Backoff
from miglet.errors import ControllerError, Refused
from miglet.events import Identity, timestamp
from miglet.facts import (
    ControllerAnswered,
    ControllerFailed,
    CredentialsRenewed,
    EventDelivered,
    EventRefused,
)
from miglet.orders import Beat, DeliverEvent, RenewCredentials
from miglet.workers.base import SILENCE_MARGIN, Worker

log = logging.getLogger(__name__)

#: Seconds to the next look when there is nothing to send.
NEVER = 3600.0


class HeartbeatSender(Worker):
    """Talks to the controller; the only worker that sends what others have to say."""

    name = "heartbeat-sender"

    def __init__(self, settings: Settings, identity: Identity) -> None:
        super().__init__(settings, identity)
        self._client = Client(settings.controller, identity.vm_id)
        self._event: dict[str, Any] | None = None
        self._event_due = 0.0
        self._beat: Beat | None = None
        #: The heartbeats' own rhythm starts at a random phase, so that a group of
        #: machines that boot together does not beat together for ever.
        self._beat_due = time.monotonic() + random.uniform(
            0.0, settings.heartbeat.interval
        )
        self._news = False
        #: Whether it is an event's turn if both are due.
        self._beat_was_last = False
        #: Whether the last failure of an event came with a time to wait.
        self._told_to_wait = False

    def open(self) -> None:
        """Nothing is connected before there is something to say."""
        self._backoff = self._new_backoff()
        self.period = NEVER

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def changed(self, before: Settings) -> None:
        """A new interval holds from now on, not after the old one has passed."""
        self._client.apply(self.settings.controller)
        self._backoff = self._new_backoff()
        self._beat_due = time.monotonic() + self._spread_interval()

    def work(self) -> None:
        """Send the most urgent thing: a heartbeat that is due, an event, a change.

        Where each request takes longer than the interval, they take turns.
        """
        now = time.monotonic()
        event = self._event if now >= self._event_due else None
        if self._beat and now >= self._beat_due and not (event and self._beat_was_last):
            self._send_beat()
        elif event:
            self._deliver(event)
        elif self._beat and self._news:
            self._send_beat()
        self.period = max(0.0, self._next_due() - time.monotonic())

    def take_event(self, order: DeliverEvent) -> None:
        """This event is the oldest one now; the one in hand is not sent again."""
        self._event = order.event
        self._event_due = 0.0
        self.hurry()

    def take_beat(self, order: Beat) -> None:
        """What to say from now on."""
        self._news = self._news or order.at_once
        self._beat = order
        self.hurry()

    def renew(self, order: RenewCredentials) -> None:
        """Prove a new client with a request before the old one is let go."""
        fresh = Client(self.settings.controller, self.identity.vm_id)
        self.pulse(self.settings.controller.timeout + SILENCE_MARGIN)
        try:
            fresh.heartbeat(self._present_beat(), self.identity.trace_id)
        except ControllerError as error:
            fresh.close()
            self.report(CredentialsRenewed(order.command_id, str(error)))
            return
        self._client.close()
        self._client = fresh
        self.report(CredentialsRenewed(order.command_id, None))

    orders = {DeliverEvent: take_event, Beat: take_beat, RenewCredentials: renew}

    def _next_due(self) -> float:
        if self._news:
            return 0.0
        dues = [time.monotonic() + NEVER]
        if self._event:
            dues.append(self._event_due)
        if self._beat:
            dues.append(self._beat_due)
        return min(dues)

    def _deliver(self, event: dict[str, Any]) -> None:
        self._beat_was_last = False
        self.pulse(self.settings.controller.timeout + SILENCE_MARGIN)
        try:
            acknowledged = self._client.post_event(event)
        except Refused as error:
            self._settle()
            self.report(
                EventRefused(
                    event["sequence"], event["type"], error.status, error.answer
                )
            )
        except ControllerError as error:
            self._event_due = time.monotonic() + self._failed("events", error)
        else:
            self._delivered(event, acknowledged)

    def _delivered(self, event: dict[str, Any], acknowledged: bool) -> None:
        if not acknowledged:
            self._event_due = time.monotonic() + self._backoff.delay()
            log.warning("%s is received but not acknowledged yet", event["type"])
            return
        self._settle()
        self.report(EventDelivered(event["sequence"], event["type"]))

    def _settle(self) -> None:
        self._event = None
        self._backoff.reset()
        self._answered("events")

    def _send_beat(self) -> None:
        assert self._beat
        self._news, self._beat_was_last = False, True
        now = time.monotonic()
        if now >= self._beat_due:
            self._beat_due = now + self._spread_interval()
        self.pulse(2 * self.settings.controller.timeout + SILENCE_MARGIN)
        try:
            self._client.heartbeat(self._present_beat(), self.identity.trace_id)
            # A job is not heard of before its JobStarted has arrived.
            if self._beat.job and self._event is None:
                self._client.post_event(_job_heartbeat(self._beat.job))
        except ControllerError as error:
            self.report(_failure("heartbeat", error, self._beat_due - now))
        else:
            self._answered("heartbeat")
            self._hasten_event()

    def _present_beat(self) -> dict[str, Any]:
        content = self._beat.content if self._beat else {}
        return {**content, "timestamp": timestamp(time.time())}

    def _hasten_event(self) -> None:
        """The controller answers again: an event need not wait out its back-off."""
        if self._backoff.failures and not self._told_to_wait:
            self._event_due = 0.0

    def _answered(self, call: str) -> None:
        self.report(ControllerAnswered(call, self._client.clock_offset_seconds))

    def _failed(self, call: str, error: ControllerError) -> float:
        """Seconds until the next try."""
        self._told_to_wait = getattr(error, "retry_after", None) is not None
        delay = self._backoff.delay(error)
        self.report(_failure(call, error, delay))
        return delay

    def _spread_interval(self) -> float:
        return self.settings.heartbeat.interval * random.uniform(0.9, 1.1)

    def _new_backoff(self) -> Backoff:
        retry = self.settings.controller.retry
        return Backoff(retry.initial_backoff, retry.max_backoff)


def _failure(call: str, error: ControllerError, delay: float) -> ControllerFailed:
    log.info("%s: %s; again in %.2f s", call, error, delay)
    return ControllerFailed(call, error.category, str(error), delay)


def _job_heartbeat(told: dict[str, Any]) -> dict[str, Any]:
    """The arbiter's envelope, brought up to this moment."""
    envelope = told["envelope"]
    elapsed = round(max(0.0, time.monotonic() - told["seen_now"]), 3)
    return {
        **envelope,
        "id": str(uuid.uuid4()),
        "timestamp": timestamp(time.time()),
        "data": {**envelope["data"], "elapsed_seconds": elapsed},
    }
