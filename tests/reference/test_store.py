"""The reference controller's database: stored once, kept in bounds, read in order."""

from __future__ import annotations

import sqlite3

import pytest

from miglet.reference.store import (
    HEARTBEATS_KEPT,
    LEASE_SECONDS,
    MAX_AT_ONCE,
    Arrival,
    CommandQueue,
    Queries,
    Store,
    StoreResult,
    open_database,
)
from tests.reference_samples import event, heartbeat

NOW = Arrival(1768473000.0, 10.0)


@pytest.fixture
def db(tmp_path):
    opened = open_database(tmp_path / "reference.db")
    yield opened
    opened.close()


@pytest.fixture
def store(db) -> Store:
    made = Store(db)
    made.meet("vm", at=NOW.at)
    return made


def sequences(db) -> list[int]:
    """Those of the stored events, in order of arrival."""
    return [row["event"]["sequence"] for row in Queries(db).events("vm", after=0)]


def test_an_event_is_stored_once(store, db):
    sent = event(vm="vm")
    assert store.store_event("vm", sent, NOW) is StoreResult.NEW
    assert store.store_event("vm", dict(reversed(sent.items())), NOW) is (
        StoreResult.DUPLICATE
    )
    assert sequences(db) == [1]


def test_an_id_with_another_content_is_a_conflict_and_stores_nothing(store, db):
    sent = event(vm="vm")
    store.store_event("vm", sent, NOW)
    changed = {**sent, "state": "draining"}
    assert store.store_event("vm", changed, NOW) is StoreResult.CONFLICT
    assert Queries(db).events("vm", after=0)[0]["event"]["state"] == sent["state"]


def test_no_more_than_five_hundred_events_are_answered_at_once(store, db):
    for sequence in range(1, 503):
        store.store_event("vm", event(vm="vm", sequence=sequence), NOW)
    first = Queries(db).events("vm", after=0)
    rest = Queries(db).events("vm", after=first[-1]["position"])
    assert (len(first), len(rest)) == (500, 2)


def test_the_newest_heartbeats_are_kept(store, db):
    for number in range(HEARTBEATS_KEPT + 5):
        store.store_heartbeat("vm", heartbeat("vm", events_pending=number), NOW)
    kept = Queries(db).heartbeats("vm")
    assert len(kept) == HEARTBEATS_KEPT
    assert kept[-1]["heartbeat"]["events_pending"] == HEARTBEATS_KEPT + 4


def test_a_file_that_another_process_uses_is_refused(tmp_path, db, monkeypatch):
    monkeypatch.setattr("miglet.reference.store.LOCK_SECONDS", 0.01)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_database(tmp_path / "reference.db")


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        open_database(tmp_path / "text")


# Commands.


@pytest.fixture
def queue(db) -> CommandQueue:
    return CommandQueue(db)


def later(seconds: float) -> Arrival:
    return Arrival(NOW.at + seconds, NOW.now + seconds)


def test_a_command_is_handed_out_again_only_when_its_lease_is_over(queue):
    added = queue.add("vm", {"type": "Drain"}, NOW.at)
    (command,) = queue.claim("vm", NOW)
    assert (command["id"], command["type"], command["parameters"]) == (
        added,
        "Drain",
        {},
    )
    assert queue.claim("vm", later(LEASE_SECONDS - 1)) == []
    assert queue.lease_left("vm", later(1).now) == LEASE_SECONDS - 1
    assert [each["id"] for each in queue.claim("vm", later(LEASE_SECONDS))] == [added]


def test_without_an_open_command_no_lease_ends(queue):
    assert queue.lease_left("vm", NOW.now) == float("inf")


def test_an_answer_has_so_many_commands_and_the_oldest_first(queue):
    added = [queue.add("vm", {"type": "Drain"}, NOW.at) for _ in range(MAX_AT_ONCE + 1)]
    assert [each["id"] for each in queue.claim("vm", NOW)] == added[:-1]
    assert [each["id"] for each in queue.claim("vm", NOW)] == added[-1:]


def test_a_completed_command_is_never_handed_out_and_the_first_outcome_counts(
    queue, store
):
    added = queue.add("vm", {"type": "Drain"}, NOW.at)
    for sequence, outcome in enumerate(("done", "failed"), 1):
        sent = event("CommandCompleted", vm="vm", sequence=sequence)
        sent["data"] |= {"command_id": added, "outcome": outcome}
        store.store_event("vm", sent, NOW)
    assert queue.claim("vm", NOW) == []
    assert queue.status("vm", added)["outcome"] == "done"
    assert queue.status("other", added) is None
