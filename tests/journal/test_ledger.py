"""What a transaction does: numbers, classes, bounds, and what goes first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miglet.journal import ledger
from miglet.journal.journal import Journal
from miglet.journal.ledger import (
    CLASS_OF,
    CLASSES,
    EVENT_BYTES,
    PENDING_ROWS,
    clip_event,
)
from miglet.messages.events import EVENTS
from tests.journal.steps import event, reopened

#: What one message to a worker may have.
MESSAGE_BYTES = 64 * 1024


def all_pending(journal: Journal) -> list[int]:
    rows = journal.storages.read(
        lambda db: db.execute("SELECT sequence FROM pending ORDER BY 1").fetchall()
    )
    return [row[0] for row in rows]


def test_an_event_too_large_for_a_message_is_clipped(journal: Journal):
    huge = event("JobCompleted", result="failed", log="é" * 50_000, rest=["x"] * 9000)
    (recorded,) = journal.record(None, [huge])
    assert len(json.dumps(recorded)) < MESSAGE_BYTES
    assert recorded["data"]["result"] == "failed"
    assert recorded["metadata"] == {"truncated": True}
    assert journal.oldest() == recorded


def test_an_event_that_fits_is_not_touched():
    small = event(text="x" * (EVENT_BYTES - 200))
    assert clip_event(small) is small


def test_an_event_of_countless_keys_or_depth_still_fits():
    deep: dict = {}
    for _ in range(200):
        deep = {"a": deep, "text": "x" * 1000}
    many = {str(number): number for number in range(20_000)}
    for content in (deep, many):
        clipped = clip_event(event(content=content, kind="x" * 70_000))
        assert len(json.dumps(clipped)) < MESSAGE_BYTES


def test_every_type_of_event_has_a_class_that_exists():
    assert set(CLASS_OF) <= set(EVENTS)
    assert set(CLASS_OF.values()) <= set(CLASSES)
    assert [kind for kind, name in CLASS_OF.items() if name == "result"] == [
        "JobCompleted"
    ]


def test_the_end_of_a_machine_is_kept_as_long_as_its_beginning():
    # Controllers delete a machine when they have VMStopped.
    kept = {CLASS_OF[kind] for kind in ("VMStarted", "VMShuttingDown", "VMStopped")}
    assert kept == {"milestone"}


def test_beyond_its_rows_the_oldest_of_the_lowest_class_goes(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, quick: bool
):
    rows = 180 if quick else PENDING_ROWS
    monkeypatch.setattr(ledger, "PENDING_ROWS", rows)
    journal.record(None, [event("Error"), event("JobCompleted"), event("JobStarted")])
    journal.record(None, [event("JobStarted")] * (rows - 3))
    assert journal.counts().dropped == 0
    journal.record(None, [event("JobStarted")])
    assert all_pending(journal)[:2] == [2, 3]
    journal.record(None, [event("JobStarted")])
    assert all_pending(journal)[:2] == [2, 4]
    journal.record(None, [event("Error")])  # itself the lowest
    counts = journal.counts()
    assert counts.dropped_by_class == {"report": 2, "milestone": 1}
    assert counts.pending == rows
    assert journal.recent(1)[0]["status"] == "dropped"
    assert journal.take_findings() == []  # the report would drop another event
    journal.delivered(2)
    (finding,) = journal.take_findings()
    assert (finding.code, finding.counts) == (
        "events_dropped",
        {"report": 2, "milestone": 1},
    )
    assert journal.take_findings() == []
    assert reopened(journal).take_findings() == []


def test_the_file_stays_within_its_bound(journal: Journal, path: Path):
    results = journal.record(None, [event("JobCompleted", log="x" * 1000)] * 50)
    for _ in range(30):
        journal.record(None, [event("Error", log="x" * 50_000) for _ in range(10)])
        journal.record(None, [event("JobStarted", log="x" * 50_000)])
    assert path.stat().st_size <= 8 * 1024 * 1024
    counts = journal.counts()
    assert counts.dropped_by_class.keys() == {"report"}
    assert counts.pending + counts.dropped == 50 + 330
    assert all_pending(journal)[:50] == [one["sequence"] for one in results]


def test_results_pass_the_bound_rather_than_be_dropped(journal: Journal):
    journal.record(None, [event("Error", log="x" * 50_000) for _ in range(20)])
    for _ in range(20):
        journal.record(None, [event("JobCompleted", log="x" * 50_000)] * 10)
    counts = journal.counts()
    assert counts.dropped_by_class == {"report": 20}
    assert counts.pending == 200
    assert journal.degraded is None
