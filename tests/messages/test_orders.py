"""Orders: each goes to a worker that there is, and keeps its secrets to itself."""

from __future__ import annotations

import dataclasses

import pytest

from miglet.messages.codec import Order, decode, encode
from miglet.messages.orders import (
    ApplySettings,
    DeliverEvent,
    FollowJob,
    ProvideRunner,
    RenewCredentials,
    SetLevel,
    ShowStatus,
    Stop,
    StopRunner,
    UpdateHeartbeat,
    WatchRunner,
)
from miglet.workers.registry import NAMES

ORDERS = [
    Stop(),
    ApplySettings({"pool_id": "p"}),
    SetLevel("debug"),
    FollowJob("1", "2", "3"),
    DeliverEvent({"sequence": 1}, once=True),
    UpdateHeartbeat({"miglet_state": "idle"}, at_once=True),
    RenewCredentials("command-1"),
    ProvideRunner("runner-1", 2.5, spent_tokens=["a"]),
    WatchRunner("run-1", minimal=True),
    StopRunner(settle_seconds=1.0, grace_seconds=None, cause="timeout"),
    ShowStatus({"state": "idle"}),
]


def kinds() -> list[type[Order]]:
    """Every order of the product."""
    found = Order.__subclasses__()
    return [each for each in found if each.__module__ == "miglet.messages.orders"]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_an_order_survives_its_way_through_a_queue(order):
    assert decode(encode(order)) == order


@pytest.mark.parametrize("kind", kinds())
def test_an_order_is_for_one_worker_or_for_all(kind):
    assert kind.to in (*NAMES, "")
    assert dataclasses.is_dataclass(kind) and kind.__doc__


@pytest.mark.parametrize(
    "order",
    [
        ApplySettings({"controller": {"proxy": "hunter2"}}),
        DeliverEvent({"data": {"name": "hunter2"}}),
        UpdateHeartbeat({"current_job": "hunter2"}),
        ShowStatus({"job": "hunter2"}),
    ],
)
def test_what_may_hold_a_secret_is_not_in_the_repr(order):
    assert "hunter2" not in repr(order)


def test_an_order_without_its_details_asks_for_nothing_special():
    plain = ProvideRunner("runner-1")
    assert (plain.delay_seconds, plain.keep_registration, plain.instead_of) == (
        0.0,
        False,
        "",
    )
    assert StopRunner().cause == "shutdown" and StopRunner().grace_seconds is None
