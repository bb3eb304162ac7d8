"""Event delivery: one event at a time, the oldest first, those set aside at the end."""

from __future__ import annotations

import pytest

from miglet.agent.delivery import EventDelivery
from miglet.journal.journal import Journal
from miglet.messages.facts import EventDelivered, EventRefused, EventSetAside

BOOT = "8a6ba3f6-0000-4000-8000-000000000000"


class FakeSupervisor:
    """Keeps the orders for the heartbeat-sender."""

    def __init__(self):
        self.orders = []
        self.pid = 100

    def send(self, worker, order):
        assert worker == "heartbeat-sender"
        self.orders.append(order)

    def pid_of(self, worker):
        return self.pid


@pytest.fixture
def journal(tmp_path):
    opened = Journal.open([tmp_path / "journal.db"], BOOT)
    yield opened
    opened.close()


@pytest.fixture
def supervisor():
    return FakeSupervisor()


@pytest.fixture
def uplink(journal, supervisor):
    return EventDelivery(journal, supervisor)


def record(journal, *types):
    return journal.record(None, [{"type": type} for type in types])


def offered(uplink, supervisor):
    """The sequence that is offered next, and whether it is the last try; None: none."""
    uplink.offer()
    if not supervisor.orders:
        return None
    (order,) = supervisor.orders
    supervisor.orders.clear()
    return order.event["sequence"], order.once


def aside(sequence, last=False):
    return EventSetAside(sequence, "JobCompleted", "", "500", last)


def test_the_oldest_event_is_offered_and_no_other_before_it_is_settled(
    uplink, supervisor, journal
):
    record(journal, "VMStarted", "JobStarted")
    assert offered(uplink, supervisor) == (1, False)
    assert offered(uplink, supervisor) is None
    uplink.record(EventDelivered(1, "VMStarted"))
    assert offered(uplink, supervisor) == (2, False)
    uplink.record(EventRefused(2, "JobStarted", 422, "no"))
    assert uplink.offer() is True
    assert (journal.counts().delivered, journal.counts().rejected) == (1, 1)


def test_a_new_heartbeat_sender_is_offered_what_the_one_before_had(
    uplink, supervisor, journal
):
    record(journal, "VMStarted")
    assert offered(uplink, supervisor) == (1, False)
    uplink.renew(supervisor.pid)
    assert offered(uplink, supervisor) is None
    uplink.renew(101)
    assert offered(uplink, supervisor) == (1, False)


def test_an_event_that_is_set_aside_lets_the_next_one_pass(uplink, supervisor, journal):
    record(journal, "JobCompleted", "Error", "CommandCompleted")
    assert offered(uplink, supervisor) == (1, False)
    uplink.record(aside(1))
    for sequence in (2, 3):
        assert offered(uplink, supervisor) == (sequence, False)
        uplink.record(EventDelivered(sequence, "Error"))
    assert uplink.offer() is True
    assert journal.counts().pending == 1


def test_what_was_set_aside_is_tried_once_more_before_vm_stopped(
    uplink, supervisor, journal
):
    record(journal, "JobCompleted", "JobCompleted", "Error")
    for sequence in (1, 2):
        assert offered(uplink, supervisor) == (sequence, False)
        uplink.record(aside(sequence))
    record(journal, "VMStopped")
    assert offered(uplink, supervisor) == (3, False)
    uplink.record(EventDelivered(3, "Error"))
    assert offered(uplink, supervisor) == (1, True)
    uplink.record(EventDelivered(1, "JobCompleted"))
    assert offered(uplink, supervisor) == (2, True)
    uplink.record(aside(2, last=True))
    assert offered(uplink, supervisor) == (4, False)
    uplink.record(EventDelivered(4, "VMStopped"))
    assert uplink.offer() is True
    assert journal.counts().pending == 1


def test_after_another_start_everything_is_tried_in_order_again(
    uplink, supervisor, journal
):
    record(journal, "JobCompleted", "Error")
    offered(uplink, supervisor)
    uplink.record(aside(1))
    assert offered(EventDelivery(journal, supervisor), supervisor) == (1, False)
