"""The journal against a model of it: any order of work and faults keeps its promises.

Order, numbers without a gap but for counted drops, no committed event lost, results
never dropped, counts that add up.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from miglet.journal.journal import Journal
from miglet.journal.ledger import (
    FILE_BYTES,
    PAGE_BYTES,
    RESERVE_BYTES,
    Ledger,
    class_of,
)

#: With less in it than this the journal drops nothing: one event came and one went.
FULL_BYTES = FILE_BYTES - RESERVE_BYTES - 2 * 60 * 1024

KINDS = ("JobHeartbeat", "Error", "Unknown", "JobStarted", "JobCompleted")
kinds = st.sampled_from(KINDS)


class JournalModel(RuleBasedStateMachine):
    """What the journal should hold: `waiting` maps sequence to (id, type)."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="journal-model-"))
        self.waiting: dict[int, tuple[str, str]] = {}
        self.sequence = self.delivered = self.rejected = self.dropped = self.base = 0
        self.copies = self.names = 0
        #: The last sequence number before the last call.
        self.before = 0
        self.filled = False
        self.state: dict | None = None
        self.commands: dict[str, dict] = {}

    @property
    def path(self) -> Path:
        return self.root / f"copy-{self.copies}" / "journal.db"

    @initialize()
    def begin(self) -> None:
        self.open()

    def open(self) -> None:
        fallback = self.path.parent / "run" / "journal.db"
        self.journal = Journal.open([self.path, fallback], "boot")

    def event(self, kind: str, size: int) -> dict:
        self.names += 1
        return {"id": f"n{self.names}", "type": kind, "data": {"text": "x" * size}}

    def stored(self) -> dict[int, tuple[str, str]]:
        rows = self.journal.storages.read(
            lambda db: db.execute("SELECT * FROM pending ORDER BY sequence").fetchall()
        )
        bodies = {row[0]: json.loads(row[2]) for row in rows}
        assert all(number == body["sequence"] for number, body in bodies.items())
        return {n: (body["id"], body["type"]) for n, body in bodies.items()}

    def used(self) -> int:
        """Bytes of the pages that hold something."""
        db = self.journal.storages.storage.db
        pages, free = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count")
        )
        return (pages - free) * PAGE_BYTES

    def settle_drops(self) -> None:
        """Take over what the journal has dropped, if it was right to drop it.

        An event is dropped when it or a later one of the last call came. Then nothing
        of a lower class was there any more, and nothing older of its own. What came
        afterwards may be of a lower class, and still have clip_event.
        """
        kept = self.stored()
        gone = {n: one for n, one in self.waiting.items() if n not in kept}
        assert not gone or self.used() > FULL_BYTES
        for number, (_, kind) in gone.items():
            assert kind != "JobCompleted"
            came = max(number, self.before + 1)
            worse = [n for n, one in kept.items() if class_of(one[1]) < class_of(kind)]
            alike = [n for n, one in kept.items() if class_of(one[1]) == class_of(kind)]
            assert not [n for n in worse if n <= came]
            assert not [n for n in alike if n < number]
            del self.waiting[number]
        self.dropped += len(gone)

    @rule(few=st.lists(kinds, max_size=4), size=st.integers(0, 2000))
    def append(self, few: list[str], size: int) -> None:
        self.note(self.journal.record(None, [self.event(kind, size) for kind in few]))
        self.settle_drops()
        assert self.stored() == self.waiting

    @rule(kind=kinds, count=st.integers(1, 60))
    def append_much(self, kind: str, count: int) -> None:
        if kind == "JobCompleted":
            count = min(count, 5)
        events = [self.event(kind, 50_000) for _ in range(count)]
        self.note(self.journal.record(None, events))
        self.settle_drops()

    def note(self, recorded: list[dict]) -> None:
        self.before = self.sequence
        for one in recorded:
            self.sequence += 1
            assert one["sequence"] == self.sequence
            self.waiting[self.sequence] = (one["id"], one["type"])

    @rule(value=st.integers(), kind=kinds)
    def step(self, value: int, kind: str) -> None:
        self.state = {"value": value}
        self.note(self.journal.record(self.state, [self.event(kind, 10)]))
        self.settle_drops()

    @rule(name=st.text(max_size=3), outcome=st.sampled_from([None, "done"]))
    def command(self, name: str, outcome: str | None) -> None:
        key = f"c-{name}"
        self.commands[key] = {"outcome": outcome}
        self.journal.record(None, [], {key: self.commands[key]})

    @precondition(lambda self: self.waiting)
    @rule()
    def deliver(self) -> None:
        number = (self.journal.oldest() or {})["sequence"]
        assert number == min(self.waiting)
        self.journal.delivered(number)
        self.journal.delivered(number)
        del self.waiting[number]
        self.delivered += 1

    @precondition(lambda self: self.waiting)
    @rule(status=st.sampled_from([400, 422, None]), answer=st.text(max_size=50))
    def refuse(self, status: int | None, answer: str) -> None:
        number = min(self.waiting)
        self.journal.refused(number, status, answer)
        del self.waiting[number]
        self.rejected += 1

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.open()

    def killed(self) -> None:
        """Go on with the files as they are now, as after SIGKILL or a power cut."""
        old = self.path.parent
        self.copies += 1
        shutil.copytree(old, self.path.parent)
        self.journal.close()
        shutil.rmtree(old)

    @rule()
    def crash(self) -> None:
        self.killed()
        self.open()

    @rule()
    def crash_in_a_step(self) -> None:
        self.killed()
        pid = os.fork()
        if pid == 0:
            self.open()
            self.journal.storages.write(self.half_a_step)
        assert os.waitpid(pid, 0)[1] == 0
        self.open()

    def half_a_step(self, ledger: Ledger) -> None:
        ledger.add(self.event("JobStarted", 1000))
        ledger.save_state({"value": "half"}, "boot")
        ledger.save_counters()
        os._exit(0)

    # Not twice in a row: memory, the third place, does not outlive the process.
    @precondition(lambda self: self.journal.storages.storage.path == self.path)
    @rule()
    def disk_fails(self) -> None:
        self.journal.storages.storage.db.execute("PRAGMA query_only = ON")

    # Once: results are not dropped, and even memory has an end.
    @precondition(lambda self: not self.filled)
    @precondition(lambda self: self.journal.storages.storage.path == self.path)
    @rule()
    def disk_is_full(self) -> None:
        # SQLite finds no room for another page.
        self.filled = True
        db = self.journal.storages.storage.db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        while self.journal.storages.storage.path == self.path:
            results = [self.event("JobCompleted", 50_000) for _ in range(60)]
            self.note(self.journal.record(None, results))
            self.settle_drops()

    def closed_in_its_first_place(self) -> None:
        self.reopen()
        self.journal.close()

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0), bit=st.integers(0, 7))
    def flip_a_bit(self, which: int, bit: int) -> None:
        self.closed_in_its_first_place()
        number = sorted(self.waiting)[which % len(self.waiting)]
        mark = b'"id":"%s"' % self.waiting[number][0].encode()
        content = bytearray(self.path.read_bytes())
        place = content.find(mark)
        while place >= 0:
            content[place + 7] ^= 1 << bit
            place = content.find(mark, place + 1)
        self.path.write_bytes(content)
        self.open()
        del self.waiting[number]
        self.dropped += 1
        assert "rows_damaged" in [one.code for one in self.journal.take_findings()]

    @rule(length=st.integers(0, 300), filler=st.sampled_from([b"", b"\0", b"x"]))
    def lose_the_file(self, length: int, filler: bytes) -> None:
        self.closed_in_its_first_place()
        self.path.write_bytes(filler * length)
        self.open()
        assert self.journal.take_findings()[0].code == "journal_reset"
        self.base = self.sequence
        self.delivered = self.rejected = self.dropped = 0
        self.waiting.clear()
        self.state = None
        self.commands.clear()

    @rule(pages=st.integers(100, 1500))
    def truncate_the_file(self, pages: int) -> None:
        self.closed_in_its_first_place()
        os.truncate(self.path, pages * 4096)
        self.open()
        assert self.journal.take_findings()[0].code == "journal_reset"
        kept = self.stored()
        assert kept.items() <= self.waiting.items()
        counts = self.journal.counts()
        self.waiting = kept
        self.state = self.journal.state()
        self.commands = {}
        self.base = self.journal.storages.storage.counters.base
        self.delivered, self.rejected = counts.delivered, counts.rejected
        self.dropped = counts.dropped

    @invariant()
    def promises_hold(self) -> None:
        counts = self.journal.counts()
        assert counts.pending == len(self.waiting)
        assert (counts.delivered, counts.rejected) == (self.delivered, self.rejected)
        assert counts.dropped == self.dropped
        gone = counts.delivered + counts.rejected + counts.dropped
        assert self.base + counts.pending + gone == self.sequence
        assert self.journal.state() == self.state
        for name, command in self.commands.items():
            assert self.journal.command(name) == command
        first = self.journal.oldest()
        assert (first or {}).get("sequence") == min(self.waiting, default=None)

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.root)


class LongJournalModel(JournalModel):
    """The same model with more histories."""


def histories(count: int) -> settings:
    """How many histories are tried, each of at most 25 steps."""
    return settings(
        max_examples=count,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


JournalModel.TestCase.settings = histories(10)
TestJournalModel = pytest.mark.integration(JournalModel.TestCase)

LongJournalModel.TestCase.settings = histories(40)
TestLongJournalModel = pytest.mark.slow(LongJournalModel.TestCase)
