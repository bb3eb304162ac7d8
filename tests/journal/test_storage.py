"""One file of the journal: torn, cut short, closed halfway; never half a step."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from miglet.journal.journal import Journal
from miglet.journal.ledger import FILE_BYTES, FORMAT, PAGE_BYTES
from tests.journal.files import add_up, codes, copy_of, died, event, opened, pending

pytestmark = pytest.mark.integration

ALL_PAGES = FILE_BYTES // PAGE_BYTES


def test_a_valid_database_that_is_no_journal_is_set_aside(filled: Path):
    filled.unlink()
    other = sqlite3.connect(filled)
    other.execute("CREATE TABLE somebody (elses TEXT)")
    other.execute(f"PRAGMA user_version = {FORMAT}")
    other.close()
    with opened(filled) as journal:
        assert codes(journal) == ["journal_reset"]
        assert journal.record(None, [event()])[0]["sequence"] == 11


def test_a_file_of_a_newer_format_is_kept_untouched(filled: Path):
    database = sqlite3.connect(filled)
    database.execute(f"PRAGMA user_version = {FORMAT + 1}")
    database.close()
    with opened(filled) as journal:
        assert codes(journal) == ["journal_newer"]
    (kept,) = (
        one
        for one in filled.parent.glob("journal.db.newer-*")
        if not one.name.endswith("-wal")
    )
    database = sqlite3.connect(kept)
    assert database.execute("SELECT COUNT(*) FROM pending").fetchone() == (8,)
    database.close()


def test_marks_that_are_damaged_count_for_nothing(tmp_path: Path):
    places = [tmp_path / "one" / "journal.db", tmp_path / "two" / "journal.db"]
    with opened(*places) as journal:
        journal.record(None, [event(), event(), event()])
    places[1].with_name("journal.db-sequence").write_bytes(b"9" * 32)
    with opened(*places) as journal:
        assert codes(journal) == []
        assert journal.record(None, [event()])[0]["sequence"] == 4


def test_what_is_set_aside_does_not_fill_the_disk(filled: Path):
    for _ in range(6):
        filled.write_bytes(b"garbage")
        with opened(filled):
            pass
    aside = filled.parent.glob("journal.db.corrupt-*")
    assert len([one for one in aside if not one.name.endswith("-wal")]) == 3


def test_a_torn_log_leaves_a_prefix_of_the_steps(tmp_path: Path):
    chance = random.Random(11)
    path = tmp_path / "live" / "journal.db"
    with opened(path) as journal:
        for number in range(1, 9):
            journal.record({"step": number}, [event(name=f"e{number}")])
        size = journal.storages.storage.db.execute("PRAGMA page_size").fetchone()[0]
        for trial in range(40):
            torn = copy_of(path, tmp_path / f"torn-{trial}")
            log_file = torn.with_name("journal.db-wal")
            content = bytearray(log_file.read_bytes())
            cut = chance.randrange(80 * size)
            content[cut : cut + 5000] = chance.randbytes(5000)
            log_file.write_bytes(content if trial % 2 else content[:cut])
            with opened(torn) as after:
                names = pending(after)
                assert names == [f"e{n}" for n in range(1, len(names) + 1)]
                state = after.state()
                assert (state or {"step": 0})["step"] == len(names)
                assert after.record(None, [event()])[0]["sequence"] == 9
                assert add_up(after)


def test_what_was_recorded_survives_a_kill(filled: Path):
    died(filled, lambda journal: journal.record({"state": "x"}, [event(name="last")]))
    with opened(filled) as journal:
        assert pending(journal)[-1] == "last"
        assert journal.state() == {"state": "x"}
        assert codes(journal) == []


@pytest.mark.parametrize("stage", ["begun", "half", "before_commit"])
def test_a_death_within_a_step_leaves_the_old_state(filled: Path, stage: str):
    def step(ledger):
        if stage != "begun":
            ledger.save_state({"state": "half"}, "boot")
            ledger.add(event(name="half"))
        if stage == "before_commit":
            ledger.save_commands({"half": {}})
            ledger.save_counters()
        os.kill(os.getpid(), signal.SIGKILL)

    died(filled, lambda journal: journal.storages.write(step))
    with opened(filled) as journal:
        assert pending(journal) == [f"e{n}" for n in range(3, 11)]
        assert journal.state() == {"state": "idle"}
        assert journal.command("half") is None
        assert journal.record(None, [event()])[0]["sequence"] == 11


def test_kills_at_random_moments_lose_no_step_that_was_reported(tmp_path: Path):
    path, chance = tmp_path / "journal.db", random.Random(3)
    with opened(path):
        pass
    reported = 0
    for _ in range(25):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            journal = Journal.open([path], "boot")
            while True:
                (one,) = journal.record({"step": 1}, [event()])
                os.write(writing, b"%d\n" % one["sequence"])
        os.close(writing)
        for _ in range(chance.randrange(1, 30)):
            os.read(reading, 3)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with open(reading, "rb") as rest:
            lines = [line for line in rest.read().split() if line]
        with opened(path) as journal:
            assert codes(journal) == []
            recorded = journal.storages.storage.counters.sequence
            assert len(pending(journal)) == recorded > reported
            assert not lines or recorded >= int(lines[-1])
            assert add_up(journal)
        reported = recorded


def test_an_unfinished_new_file_is_no_journal(tmp_path: Path):
    path = tmp_path / "journal.db"
    path.with_name("journal.db.new").write_bytes(b"half")
    with opened(path) as journal:
        assert codes(journal) == []
    assert not path.with_name("journal.db.new").exists()


def test_a_new_file_has_its_full_size_in_pages_that_sqlite_calls_free(tmp_path: Path):
    path = tmp_path / "journal.db"
    with opened(path):
        pass
    assert path.stat().st_blocks * 512 >= FILE_BYTES
    with closing(sqlite3.connect(path)) as database:
        assert sizes(database)[0] == path.stat().st_size // PAGE_BYTES == ALL_PAGES
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_free_pages_of_a_new_file_are_used_before_it_grows(tmp_path: Path):
    path = tmp_path / "journal.db"
    with opened(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE filling (bytes BLOB)")
        written, insert = 0, "INSERT INTO filling VALUES (zeroblob(?))"
        while sizes(database)[1] > 12:
            database.execute(insert, (10 * PAGE_BYTES,))
            written += 10
        assert sizes(database)[0] == ALL_PAGES
        assert written > ALL_PAGES * 0.9
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def sizes(database: sqlite3.Connection) -> tuple[int, int]:
    """How many pages the file has, and how many of them are free."""
    names = ("page_count", "freelist_count")
    return tuple(database.execute(f"PRAGMA {name}").fetchone()[0] for name in names)


def test_a_log_without_its_file_is_not_replayed(filled: Path):
    died(filled, lambda journal: journal.record({"state": "x"}, [event(name="last")]))
    filled.unlink()
    with opened(filled) as journal:
        assert journal.oldest() is None and journal.state() is None
        assert journal.record(None, [event()])[0]["sequence"] == 12


def test_a_close_that_cannot_empty_the_log_leaves_it_whole(filled: Path):
    pid = os.fork()
    if pid == 0:
        journal = Journal.open([filled], "boot")
        journal.record({"state": "x"}, [event(name="last")])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
        journal.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with opened(filled) as journal:
        assert codes(journal) == [] and journal.state() == {"state": "x"}
        assert pending(journal)[-1] == "last"


def test_a_death_while_closing_keeps_everything(filled: Path):
    # Between the second name of the log and the first one's return.
    log_file = filled.with_name("journal.db-wal")
    with opened(filled) as journal:
        journal.record(None, [event(name="last")])
        os.link(log_file, filled.with_name("journal.db-wal-kept"))
        path = copy_of(filled, filled.parent / "killed")
    shutil.copy(log_file, path.with_name("journal.db-wal-kept"))
    for _ in range(2):
        with opened(path) as journal:
            assert pending(journal)[-1] == "last"
            assert codes(journal) == []
