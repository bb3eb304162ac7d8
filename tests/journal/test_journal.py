"""The journal in ordinary times: what it keeps, in which order, and what it counts."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from miglet.journal.journal import Journal
from tests.bench_journal import commits_per_second
from tests.journal.steps import event, reopened
from tests.support import Stopwatch

OPENS = """
import pathlib, sys
from miglet.journal.journal import Journal
Journal.open([pathlib.Path(sys.argv[1])], "boot-1")
"""


def test_events_are_numbered_from_one_without_a_gap(journal: Journal):
    recorded = journal.record(None, [event(), event("Error")])
    recorded += journal.record(None, [event("JobCompleted")])
    assert [one["sequence"] for one in recorded] == [1, 2, 3]


def test_numbers_go_on_after_delivery_and_restart(journal: Journal):
    journal.record(None, [event(), event()])
    journal.delivered(1)
    journal.delivered(2)
    again = reopened(journal)
    assert again.record(None, [event()])[0]["sequence"] == 3


def test_the_oldest_undelivered_event_comes_first(journal: Journal):
    first, second = journal.record(None, [event(name="a"), event(name="b")])
    assert journal.oldest() == first
    journal.delivered(first["sequence"])
    assert journal.oldest() == second
    journal.delivered(second["sequence"])
    assert journal.oldest() is None


def test_an_acknowledgement_counts_once(journal: Journal):
    journal.record(None, [event()])
    for sequence in (1, 1, 7, 0, -1, 2**70):
        journal.delivered(sequence)
    counts = journal.counts()
    assert (counts.pending, counts.delivered) == (0, 1)


def test_a_refused_event_is_set_aside_with_the_answer(journal: Journal):
    journal.record(None, [event(), event("Error")])
    journal.refused(1, 422, "no such field\ud800")
    journal.refused(1, 422, "again")
    journal.refused(2**70, None, "")
    assert journal.counts().rejected == 1
    assert (journal.oldest() or {})["sequence"] == 2
    row = journal.storages.read(
        lambda db: db.execute("SELECT * FROM rejected").fetchone()
    )
    assert row[:3] == (1, 422, "no such field?")
    assert json.loads(row[3])["type"] == "JobStarted"


def test_refused_events_are_kept_in_bounded_number(journal: Journal):
    for one in journal.record(None, [event() for _ in range(300)]):
        journal.refused(one["sequence"], 400, "x" * 10_000)
    kept = journal.storages.read(
        lambda db: db.execute("SELECT COUNT(*), MIN(sequence) FROM rejected").fetchone()
    )
    assert kept == (200, 101)
    assert journal.counts().rejected == 300


def test_the_recent_events_tell_what_became_of_them(journal: Journal):
    journal.record(None, [{**event("JobStarted"), "job_id": "77"}, event(), event()])
    journal.delivered(1)
    journal.refused(2, 400, "no")
    first, *others = journal.recent(10)
    assert first == {
        "sequence": 1,
        "type": "JobStarted",
        "timestamp": "2026-01-15T10:30:00Z",
        "job_id": "77",
        "status": "delivered",
    }
    assert [one["status"] for one in others] == ["rejected", "pending"]
    assert [one["sequence"] for one in journal.recent(2)] == [2, 3]
    assert journal.recent(0) == journal.recent(-1) == []


def test_the_recent_events_are_bounded(journal: Journal):
    for _ in range(6):
        journal.record(None, [event() for _ in range(100)])
    assert len(journal.recent(10_000)) == 500
    assert journal.recent(1)[0]["sequence"] == 600


def test_counts_last_over_a_restart(journal: Journal):
    journal.record(None, [event() for _ in range(4)])
    journal.delivered(1)
    journal.refused(2, 400, "no")
    before = journal.counts()
    assert reopened(journal).counts() == before
    assert (before.pending, before.delivered, before.rejected) == (2, 1, 1)


def test_state_is_saved_with_its_boot(journal: Journal, path: Path):
    assert journal.state() is None and journal.saved_boot_id is None
    journal.record({"state": "idle"}, [])
    assert journal.saved_boot_id == "boot-1"
    journal.record(None, [event()])
    journal.close()

    later = Journal.open([path], "boot-2")
    assert later.state() == {"state": "idle"}
    assert later.saved_boot_id == "boot-1"
    assert [found.code for found in later.take_findings()] == ["other_boot"]
    later.discard_state()
    assert later.state() is None and later.saved_boot_id is None
    assert (later.oldest() or {})["sequence"] == 1
    later.close()


def test_the_same_boot_is_no_finding(journal: Journal):
    journal.record({"state": "idle"}, [])
    assert reopened(journal).take_findings() == []


def test_a_command_is_open_until_it_has_an_outcome(journal: Journal):
    journal.record(None, [], {"b": {"type": "Drain"}, "a": {"type": "Shutdown"}})
    assert list(journal.open_commands()) == ["b", "a"]
    done = {"type": "Drain", "outcome": "done"}
    journal.record(None, [event("CommandCompleted")], {"b": done})
    again = reopened(journal)
    assert again.open_commands() == {"a": {"type": "Shutdown"}}
    assert again.command("b") == done
    assert again.command("c") is None


def test_old_commands_go_but_never_an_open_one(journal: Journal):
    journal.record(None, [], {"open": {"type": "Drain"}})
    for part in range(4):
        names = [f"{part}-{number}" for number in range(300)]
        journal.record(None, [], {name: {"outcome": "done"} for name in names})
    assert journal.command("open") == {"type": "Drain"}
    assert journal.command("0-0") is None
    assert journal.command("3-299") == {"outcome": "done"}


def test_a_command_id_may_be_any_text(journal: Journal):
    for name in ("\ud800", "x" * 5000, "", "a'b\0c", "☃"):
        journal.record(None, [], {name: {"id": name}})
        assert journal.command(name) == {"id": name}


def test_a_step_is_one_transaction(journal: Journal):
    journal.record({"state": "idle"}, [])
    with pytest.raises(ValueError, match="JSON"):
        journal.record({"state": "job_running"}, [event(), event(bad=float("nan"))])
    assert journal.state() == {"state": "idle"}
    assert journal.counts().pending == 0
    assert journal.record(None, [event()])[0]["sequence"] == 1


def test_nothing_to_record_writes_nothing(journal: Journal):
    before = journal.storages.storage.db.total_changes
    assert journal.record(None, []) == []
    assert journal.storages.storage.db.total_changes == before


def test_the_files_are_for_their_owner_only(journal: Journal, path: Path):
    journal.record(None, [event()])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert modes == {0o600}


def test_closing_leaves_the_log_grown(journal: Journal, path: Path):
    journal.record(None, [event()])
    reopened(journal).close()
    assert path.with_name("journal.db-wal").stat().st_size >= 2 * 1024 * 1024
    left = {one.name for one in path.parent.iterdir()}
    assert left == {"journal.db", "journal.db-wal", "journal.db-sequence"}


@pytest.mark.integration
def test_another_process_learns_that_the_journal_is_in_use(
    journal: Journal, path: Path
):
    other = subprocess.run(
        [sys.executable, "-c", OPENS, str(path)], capture_output=True, text=True
    )
    assert "JournalInUse" in other.stderr
    assert str(path) in other.stderr
    journal.record(None, [event()])


def test_the_first_opening_costs_some_tens_of_milliseconds(path: Path):
    watch = Stopwatch()
    Journal.open([path], "boot-1").close()
    assert watch.seconds() < 0.5  # 20 ms on a quiet machine


def test_the_benchmark_gives_a_figure(path: Path):
    assert commits_per_second(path, 0.1) > 0
