"""The one uplink: delivers journalled events in order, sends heartbeats on time.

It keeps nothing on disk. The arbiter hands it the oldest event that is not delivered;
it tries until the controller accepts or refuses that one, and reports which.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from typing import Any

from miglet.config.settings import Settings
from miglet.controller.client import Client
from miglet.errors import ControllerError, Refused
from miglet.formats import rfc3339
from miglet.messages.facts import (
    CALL_FACTS,
    ControllerAnswered,
    CredentialsRenewed,
    EventDelivered,
    EventRefused,
    EventSetAside,
    FaultNoted,
)
from miglet.messages.orders import DeliverEvent, RenewCredentials, UpdateHeartbeat
from miglet.supervisor.privileges import HEARTBEAT_USER
from miglet.workers.base import LIVENESS_MARGIN, ControllerWorker
from miglet.workers.failures import report_failure

log = logging.getLogger(__name__)

#: Seconds to the next look when there is nothing to send.
NEVER = 3600.0

#: Seconds between the controller's clock and ours that are reported.
CLOCK_SECONDS = 30.0

CLOCK_HINT = (
    "is this machine's clock synchronised? See timedatectl(1); what expires is judged"
    " by the controller's clock"
)

#: Seconds for which an event alone may fail, while heartbeats are accepted, before the
#: next one gets its turn.
SET_ASIDE_SECONDS = 600.0


class HeartbeatSender(ControllerWorker):
    """Talks to the controller; the only worker that sends what others have to say."""

    name = "heartbeat-sender"
    user = HEARTBEAT_USER
    facts = CALL_FACTS | {
        CredentialsRenewed,
        EventDelivered,
        EventRefused,
        EventSetAside,
    }

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._order: DeliverEvent | None = None
        self._event_due = 0.0
        #: Since when the event in hand has failed alone; None: it has not.
        self._failing_since: float | None = None
        self._heartbeat: UpdateHeartbeat | None = None
        #: The heartbeats start at a random phase, so that a group of
        #: machines that boot together does not send them together for ever.
        self._heartbeat_due = self._now() + random.uniform(
            0.0, self.settings.heartbeat.interval
        )
        self._heartbeat_accepted = False
        #: Heartbeats that failed since the last one that was accepted.
        self._heartbeat_failures = 0
        self._news = False
        #: Whether it is an event's turn if both are due.
        self._heartbeat_was_last = False
        self._clock_is_off = False
        #: Whether the last failure of an event came with a time to wait.
        self._retry_after_asked = False

    def open(self) -> None:
        """Nothing is connected before there is something to send."""
        self.period = NEVER

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()

    def changed(self, before: Settings) -> None:
        """A new interval holds from now on, not after the old one has passed."""
        super().changed(before)
        self._heartbeat_due = self._now() + self._spread_interval()

    def work(self) -> None:
        """Send the most urgent thing: a heartbeat that is due, an event, a change.

        Where each request takes longer than the interval, they take turns.
        """
        now = self._now()
        order = self._order if now >= self._event_due else None
        if (
            self._heartbeat
            and now >= self._heartbeat_due
            and not (order and self._heartbeat_was_last)
        ):
            self._send_heartbeat(self._heartbeat)
        elif order:
            self._deliver(order)
        elif self._heartbeat and self._news:
            self._send_heartbeat(self._heartbeat)
        self.period = max(0.0, self._next_due() - self._now())

    def take_event(self, order: DeliverEvent) -> None:
        """This event is the oldest one now; the one in hand is not sent again."""
        self._order = order
        self._event_due = 0.0
        self._failing_since = None
        self.work_soon()

    def take_heartbeat(self, order: UpdateHeartbeat) -> None:
        """The contents of the heartbeats from now on."""
        self._news = self._news or order.at_once
        self._heartbeat = order
        self.work_soon()

    def renew(self, order: RenewCredentials) -> None:
        """Prove a new client with a request before the old one is let go."""
        fresh = Client(self.settings.controller, self.identity.vm_id)
        self.ping(self.settings.controller.timeout + LIVENESS_MARGIN)
        try:
            fresh.heartbeat(self._contents(), self.identity.trace_id)
        except ControllerError as error:
            fresh.close()
            self.report(CredentialsRenewed(order.command_id, str(error)))
            return
        self._client.close()
        self._client = fresh
        self.report(CredentialsRenewed(order.command_id, None))

    orders = {
        DeliverEvent: take_event,
        UpdateHeartbeat: take_heartbeat,
        RenewCredentials: renew,
    }

    def _next_due(self) -> float:
        if self._news:
            return 0.0
        dues = [self._now() + NEVER]
        if self._order:
            dues.append(self._event_due)
        if self._heartbeat:
            dues.append(self._heartbeat_due)
        return min(dues)

    # Events.

    def _deliver(self, order: DeliverEvent) -> None:
        event = order.event
        self._heartbeat_was_last = False
        self.ping(self.settings.controller.timeout + LIVENESS_MARGIN)
        try:
            acknowledged = self._client.post_event(event)
        except Refused as error:
            self._event_done()
            log.error("%s was rejected: %s", event["type"], error)
            self.report(
                EventRefused(
                    event["sequence"], event["type"], error.status, error.answer
                )
            )
        except ControllerError as error:
            self._failed(order, error)
        else:
            self._answered("events")
            self._acknowledged(event, acknowledged)

    def _acknowledged(self, event: dict[str, Any], acknowledged: bool) -> None:
        if not acknowledged:
            self._failing_since = None
            delay = self._backoff.delay()
            self._event_due = self._now() + delay
            message = "%s: received, but not acknowledged yet; asking again in %.1f s"
            log.warning(message, event["type"], delay)
            return
        self._event_done()
        self.report(EventDelivered(event["sequence"], event["type"]))

    def _event_done(self) -> None:
        """The event in hand is dealt with."""
        self._order = None
        self._failing_since = None
        self._backoff.reset()

    def _failed(self, order: DeliverEvent, error: ControllerError) -> None:
        now = self._now()
        self._retry_after_asked = getattr(error, "retry_after", None) is not None
        delay = self._backoff.delay(error)
        self._event_due = now + delay
        report_failure(self, "events", error, self._backoff.failures, delay)
        if self._failing_since is None and self._heartbeat_accepted:
            self._failing_since = now
        if order.once or self._fails_alone(order.event, now):
            self._set_aside(order, error)

    def _set_aside(self, order: DeliverEvent, error: ControllerError) -> None:
        event = order.event
        self._event_done()
        log.error("%s is set aside: %s", event["type"], error)
        code = str(event["data"].get("code", ""))
        self.report(
            EventSetAside(
                event["sequence"], event["type"], code, str(error), order.once
            )
        )

    def _fails_alone(self, event: dict[str, Any], now: float) -> bool:
        """Whether others need not wait for it any longer.

        What VMStarted keeps waiting is the whole machine, as long as it waits for it.
        """
        content = self._heartbeat.content if self._heartbeat else {}
        waiting = content.get("miglet_state") == "waiting_for_controller"
        if self._failing_since is None or (event["type"] == "VMStarted" and waiting):
            return False
        return now - self._failing_since >= SET_ASIDE_SECONDS

    # Heartbeats.

    def _send_heartbeat(self, heartbeat: UpdateHeartbeat) -> None:
        self._news, self._heartbeat_was_last = False, True
        now = self._now()
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + self._spread_interval()
        self.ping(2 * self.settings.controller.timeout + LIVENESS_MARGIN)
        try:
            self._client.heartbeat(self._contents(), self.identity.trace_id)
        except ControllerError as error:
            self._heartbeat_accepted = False
            self._failing_since = None
            self._heartbeat_failures += 1
            delay = self._heartbeat_due - now
            report_failure(self, "heartbeat", error, self._heartbeat_failures, delay)
            return
        self._heartbeat_accepted = True
        self._heartbeat_failures = 0
        self._answered("heartbeat")
        self._retry_event_now()
        # A job is not heard of before its JobStarted has arrived.
        if heartbeat.job and self._order is None:
            self._send_job_heartbeat(heartbeat.job)

    def _send_job_heartbeat(self, job: dict[str, Any]) -> None:
        """Not repeated when it fails, and no failure of the heartbeat."""
        event = _job_heartbeat(job, self._now())
        try:
            self._client.post_event(event)
        except ControllerError as error:
            log.info("JobHeartbeat: %s; the next one comes with the heartbeat", error)

    def _contents(self) -> dict[str, Any]:
        content = self._heartbeat.content if self._heartbeat else {}
        return {**content, "timestamp": rfc3339(time.time())}

    def _retry_event_now(self) -> None:
        """The controller answers again: an event need not wait out its back-off."""
        if self._backoff.failures and not self._retry_after_asked:
            self._event_due = 0.0

    def _answered(self, call: str) -> None:
        offset = self._client.clock_offset_seconds
        self.report(ControllerAnswered(call, offset))
        is_off = offset is not None and abs(offset) > CLOCK_SECONDS
        if is_off and not self._clock_is_off:
            message = f"the controller's clock is {offset:+.0f} s from this machine's"
            self.report(
                FaultNoted(
                    "infrastructure", "clock_off", message, "controller", CLOCK_HINT
                )
            )
        self._clock_is_off = is_off

    def _spread_interval(self) -> float:
        return self.settings.heartbeat.interval * random.uniform(0.9, 1.1)


def _job_heartbeat(job: dict[str, Any], now: float) -> dict[str, Any]:
    """The arbiter's envelope, brought up to this moment."""
    envelope = job["envelope"]
    elapsed = round(max(0.0, now - job["seen_now"]), 3)
    return {
        **envelope,
        "id": str(uuid.uuid4()),
        "timestamp": rfc3339(time.time()),
        "data": {**envelope["data"], "elapsed_seconds": elapsed},
    }
