"""The heartbeat-sender: events in order, heartbeats on time, none blocks the others."""

from __future__ import annotations

import logging

import pytest

from miglet.errors import BadAnswer, ControllerUnreachable, Refused
from miglet.messages.facts import (
    ControllerAnswered,
    ControllerFailed,
    EventDelivered,
    EventRefused,
    EventSetAside,
    FaultNoted,
)
from miglet.messages.orders import DeliverEvent, UpdateHeartbeat
from miglet.workers.heartbeat_sender import SET_ASIDE_SECONDS, HeartbeatSender
from tests.sample_settings import sample_settings
from tests.workers.fakes import IDENTITY, FakeClient, FakeClock, start

INTERVAL = 15.0
DOWN = ControllerUnreachable("POST https://controller.example failed: 503")


class Sender:
    """A heartbeat-sender with a fake controller and a clock that stands still."""

    def __init__(self, **replies):
        self.clock = FakeClock()
        answers = {"post_event": [True], "heartbeat": [None], **replies}
        self.client = FakeClient(**answers)
        changes = {
            "heartbeat": {"interval": INTERVAL},
            "controller": {
                "retry": {"max_attempts": 3, "initial_backoff": 1, "max_backoff": 30}
            },
        }
        self.worker = HeartbeatSender(
            sample_settings(changes), IDENTITY, self.client, self.clock
        )
        self.queue = start(self.worker)

    def work(self):
        """One attempt; the facts."""
        self.worker.work()
        return self.queue.take()

    def run(self, seconds):
        """Work whenever something is due, for so long; the facts."""
        end = self.clock() + seconds
        facts = self.work()
        while self.clock() + self.worker.period < end:
            self.clock.advance(max(self.worker.period, 0.001))
            facts += self.work()
        self.clock.now = end
        return facts

    def deliver(self, type="JobCompleted", sequence=1, once=False, **data):
        self.worker.take_event(DeliverEvent(event(type, sequence, **data), once))

    def beat(self, state="idle", job=None, at_once=False):
        self.worker.take_heartbeat(
            UpdateHeartbeat({"miglet_state": state}, job, at_once)
        )


def event(type="JobCompleted", sequence=1, **data):
    return {"id": f"e-{sequence}", "type": type, "sequence": sequence, "data": data}


def job_envelope(seen_now):
    envelope = event("JobHeartbeat", None, elapsed_seconds=0.0)
    return {"envelope": envelope, "seen_now": seen_now}


def of(kind, facts):
    return [fact for fact in facts if isinstance(fact, kind)]


# ---- events --------------------------------------------------------------------


def test_nothing_is_sent_before_there_is_something_to_send():
    sender = Sender()
    assert sender.work() == []
    assert sender.client.calls == []
    assert sender.worker.period > 600


def test_an_event_is_delivered_at_once():
    sender = Sender()
    sender.deliver(sequence=7)
    facts = sender.work()
    assert facts == [
        ControllerAnswered("events", 0.25),
        EventDelivered(7, "JobCompleted"),
    ]
    assert sender.work() == []


def test_a_refused_event_is_reported_with_the_answer():
    sender = Sender(post_event=[Refused("422 Unprocessable", 422, "no")])
    sender.deliver(sequence=7)
    assert sender.work() == [EventRefused(7, "JobCompleted", 422, "no")]
    assert sender.work() == []


def test_an_event_that_fails_is_sent_again_with_back_off():
    sender = Sender(post_event=[DOWN, DOWN, True])
    sender.deliver()
    facts = sender.run(60.0)
    assert [type(fact) for fact in facts] == [
        ControllerFailed,
        ControllerFailed,
        ControllerAnswered,
        EventDelivered,
    ]
    assert all(fact.retry_in_seconds <= 2.0 for fact in facts[:2])


def test_a_failure_is_logged_with_its_target_and_the_time_of_the_next_try(caplog):
    caplog.set_level(logging.INFO)
    sender = Sender(post_event=[DOWN])
    sender.deliver()
    sender.work()
    (line,) = caplog.messages
    assert line.startswith("POST https://controller.example failed: 503; retrying in ")


def test_what_a_controller_does_not_acknowledge_yet_is_asked_again_for_ever():
    sender = Sender(post_event=[False])
    sender.beat("waiting_for_controller")
    sender.deliver("VMStarted")
    facts = sender.run(3 * SET_ASIDE_SECONDS)
    assert of((EventSetAside, ControllerFailed), facts) == []
    assert len(sender.client.of("post_event")) > 50


def test_max_attempts_failures_in_a_row_are_reported_once_and_tried_on():
    sender = Sender(post_event=[DOWN])
    sender.deliver()
    facts = sender.run(300.0)
    (noted,) = of(FaultNoted, facts)
    assert noted.code == "call_failing"
    assert noted.message == f"events: 3 attempts in a row failed: {DOWN}"
    assert facts.index(noted) == 3
    assert len(of(ControllerFailed, facts)) > 10


# ---- events that fail alone ----------------------------------------------------


def test_an_event_that_alone_fails_for_ten_minutes_is_set_aside():
    sender = Sender(post_event=[BadAnswer("500 for this one")])
    sender.beat()
    sender.deliver(sequence=7)
    facts = sender.run(SET_ASIDE_SECONDS - 1.0)
    assert of(EventSetAside, facts) == []
    facts = sender.run(60.0)
    (aside,) = of(EventSetAside, facts)
    assert aside == EventSetAside(7, "JobCompleted", "", "500 for this one")
    sent = len(sender.client.of("post_event"))
    sender.run(60.0)
    assert len(sender.client.of("post_event")) == sent


def test_no_event_is_set_aside_while_heartbeats_fail_as_well():
    sender = Sender(post_event=[DOWN], heartbeat=[DOWN])
    sender.beat()
    sender.deliver()
    assert of(EventSetAside, sender.run(5 * SET_ASIDE_SECONDS)) == []


def test_an_outage_does_not_count_towards_the_ten_minutes():
    sender = Sender(post_event=[DOWN], heartbeat=[DOWN])
    sender.beat()
    sender.deliver()
    sender.run(2 * SET_ASIDE_SECONDS)
    sender.client.replies["heartbeat"] = [None]
    assert of(EventSetAside, sender.run(SET_ASIDE_SECONDS - 2 * INTERVAL)) == []
    assert len(of(EventSetAside, sender.run(5 * INTERVAL))) == 1


def test_no_event_is_set_aside_before_a_heartbeat_was_accepted():
    sender = Sender(post_event=[DOWN])
    sender.deliver()
    assert of(EventSetAside, sender.run(2 * SET_ASIDE_SECONDS)) == []


def test_vm_started_is_not_set_aside_while_the_machine_waits_for_it():
    sender = Sender(post_event=[DOWN])
    sender.beat("waiting_for_controller")
    sender.deliver("VMStarted")
    assert of(EventSetAside, sender.run(2 * SET_ASIDE_SECONDS)) == []
    sender.beat("job_running")
    assert len(of(EventSetAside, sender.run(60.0))) == 1


def test_the_code_of_an_error_that_is_set_aside_is_reported():
    sender = Sender(post_event=[DOWN])
    sender.beat()
    sender.deliver("Error", code="event_set_aside")
    (aside,) = of(EventSetAside, sender.run(2 * SET_ASIDE_SECONDS))
    assert aside.code == "event_set_aside"


def test_the_last_try_is_one_try():
    sender = Sender(post_event=[DOWN])
    sender.deliver(sequence=7, once=True)
    (aside,) = of(EventSetAside, sender.work())
    assert aside.last
    sender.run(60.0)
    assert len(sender.client.of("post_event")) == 1


# ---- heartbeats ----------------------------------------------------------------


def test_heartbeats_are_spread_around_their_interval():
    sender = Sender()
    sender.beat()
    times = []
    for _ in range(20):
        sender.clock.advance(sender.worker.period)
        sender.work()
        times.append(sender.clock())
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert all(0.9 * INTERVAL <= gap <= 1.1 * INTERVAL for gap in gaps)
    assert len(set(gaps)) > 10


def test_a_change_is_sent_at_once_and_once():
    sender = Sender()
    sender.beat("job_running", at_once=True)
    assert sender.work() == [ControllerAnswered("heartbeat", 0.25)]
    (beat,) = sender.client.of("heartbeat")
    assert beat["miglet_state"] == "job_running"
    assert beat["timestamp"].endswith("Z")
    assert sender.worker.period > 0


def test_a_failed_heartbeat_is_repeated_by_the_next_one():
    sender = Sender(heartbeat=[DOWN])
    sender.beat(at_once=True)
    (failed,) = sender.work()
    assert (failed.call, failed.reason) == ("heartbeat", str(DOWN))
    sender.run(10 * INTERVAL)
    assert 9 <= len(sender.client.of("heartbeat")) <= 13


def test_a_heartbeat_goes_before_an_event_when_both_are_due_and_they_take_turns():
    sender = Sender(post_event=[DOWN])
    sender.beat()
    sender.clock.advance(INTERVAL)
    sender.deliver()
    sender.work()
    sender.clock.advance(INTERVAL * 1.2)
    sender.work()
    assert [name for name, _ in sender.client.calls] == ["heartbeat", "post_event"]


def test_an_accepted_heartbeat_ends_an_events_back_off():
    sender = Sender(post_event=[DOWN, True])
    sender.deliver()
    sender.work()
    sender.beat(at_once=True)
    sender.work()
    assert of(EventDelivered, sender.work())


def test_but_not_the_time_that_the_controller_asked_for():
    busy = ControllerUnreachable("429", retry_after=60.0)
    sender = Sender(post_event=[busy, True])
    sender.deliver()
    sender.work()
    sender.beat(at_once=True)
    sender.work()
    assert of(EventDelivered, sender.work()) == []
    assert of(EventDelivered, sender.run(90.0))


def test_a_jobs_heartbeat_says_how_long_the_job_has_run():
    sender = Sender()
    sender.beat("job_running", job_envelope(sender.clock() - 12.5), at_once=True)
    sender.work()
    (sent,) = sender.client.of("post_event")
    assert (sent["type"], sent["sequence"]) == ("JobHeartbeat", None)
    assert sent["data"]["elapsed_seconds"] == 12.5
    assert sent["id"] != "e-None"


def test_no_heartbeat_of_a_job_overtakes_an_event():
    sender = Sender(post_event=[DOWN])
    sender.deliver("JobStarted")
    sender.work()
    sender.beat("job_running", job_envelope(sender.clock()), at_once=True)
    sender.work()
    assert {each["type"] for each in sender.client.of("post_event")} == {"JobStarted"}


@pytest.mark.parametrize("error", [DOWN, Refused("422 Unprocessable", 422)])
def test_a_refused_heartbeat_of_a_job_is_no_failed_heartbeat(error):
    sender = Sender(post_event=[error])
    sender.beat("job_running", job_envelope(sender.clock()), at_once=True)
    assert sender.work() == [ControllerAnswered("heartbeat", 0.25)]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(31.0, "is +31 s from"), (-95.4, "is -95 s from"), (30.0, None), (None, None)],
)
def test_a_clock_that_is_far_off_is_reported_once(offset, expected):
    sender = Sender()
    sender.client.clock_offset_seconds = offset
    sender.beat()
    noted = of(FaultNoted, sender.run(5 * INTERVAL))
    assert [fact.code for fact in noted] == (["clock_off"] if expected else [])
    assert expected is None or expected in noted[0].message


def test_a_new_interval_holds_at_once():
    sender = Sender()
    sender.beat()
    before = sender.worker.settings
    sender.worker.settings = sample_settings({"heartbeat": {"interval": 1.0}})
    sender.worker.changed(before)
    sender.work()
    assert sender.worker.period <= 1.1
