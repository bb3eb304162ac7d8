"""The journal when the disk is full, read-only or lies, and when we die at any time.

Every fault is the real thing: a full file system, a read-only mount, overwritten bytes,
a process that ends in the middle of a transaction.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from miglet.errors import JournalUnusable
from miglet.journal.journal import Journal
from miglet.journal.ledger import Ledger, Snapshot
from tests.journal.files import add_up, codes, copy_of, died, event, opened, pending

pytestmark = pytest.mark.integration

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


# Damaged files.


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(random.Random(1).randbytes(100_000)),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not a database\n" * 1000),
        lambda path: os.truncate(path, 100),
        lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(5000)),
    ],
    ids=["garbage", "empty", "text", "stump", "header"],
)
def test_a_file_that_cannot_be_read_is_set_aside_and_numbers_go_on(
    filled: Path, damage: Callable[[Path], object]
):
    damage(filled)
    with opened(filled) as journal:
        assert codes(journal) == ["journal_reset"]
        assert journal.oldest() is None and journal.state() is None
        assert journal.record(None, [event()])[0]["sequence"] == 11
        assert journal.degraded is None and add_up(journal)
    aside = list(filled.parent.glob("journal.db.corrupt-*"))
    assert [one for one in aside if not one.name.endswith("-wal")]


def test_numbers_go_on_when_all_of_the_first_place_is_lost(tmp_path: Path):
    places = [tmp_path / "one" / "journal.db", tmp_path / "two" / "journal.db"]
    with opened(*places) as journal:
        journal.record(None, [event(), event(), event()])
    shutil.rmtree(places[0].parent)
    with opened(*places) as journal:
        assert codes(journal) == ["journal_reset"]
        assert journal.record(None, [event()])[0]["sequence"] == 4


def test_what_a_truncated_file_still_holds_is_rescued(filled: Path):
    os.truncate(filled, 1024 * 1024)
    with opened(filled) as journal:
        (finding,) = journal.take_findings()
        assert finding.code == "journal_reset"
        assert finding.counts == {"events_rescued": 8}
        assert pending(journal) == [f"e{n}" for n in range(3, 11)]
        assert journal.state() == {"state": "idle"}
        assert journal.open_commands() == {"c": {"type": "Drain"}}
        counts = journal.counts()
        assert (counts.delivered, counts.rejected, counts.dropped) == (1, 1, 0)


def flip(path: Path, within: bytes) -> None:
    content = bytearray(path.read_bytes())
    place = content.find(within)
    assert place > 0
    while place > 0:
        content[place + len(within) // 2] ^= 0x10
        place = content.find(within, place + 1)
    path.write_bytes(content)


def test_a_flipped_bit_in_an_event_costs_that_event_alone(filled: Path):
    flip(filled, b'"id":"e5"')
    with opened(filled) as journal:
        assert pending(journal) == ["e3", "e4", "e6", "e7", "e8", "e9", "e10"]
        assert journal.counts().dropped_by_class == {"damaged": 1}
        assert codes(journal) == ["rows_damaged", "events_dropped"]
        assert add_up(journal)
        kept = journal.storages.read(
            lambda db: db.execute(
                "SELECT answer FROM rejected WHERE sequence = 5"
            ).fetchone()
        )
        assert kept == ("checksum",)


def test_a_bit_that_flips_while_we_run_is_noticed_on_delivery(filled: Path):
    with opened(filled) as journal:
        journal.storages.storage.db.execute(
            "UPDATE pending SET body = CAST(replace(body, 'e3', 'e4') AS BLOB)"
            " WHERE sequence = 3"
        )
        assert (journal.oldest() or {})["sequence"] == 4
        assert journal.counts().dropped_by_class == {"damaged": 1}
        assert add_up(journal)


def test_a_flipped_bit_in_the_counters_leaves_them_adding_up(filled: Path):
    flip(filled, b'"generation"')
    with opened(filled) as journal:
        assert codes(journal) == ["rows_damaged"]
        assert journal.record(None, [event(name="e11")])[0]["sequence"] == 11
        assert add_up(journal)
        assert pending(journal) == [f"e{n}" for n in range(3, 12)]


def test_a_flipped_bit_in_the_state_is_no_state(filled: Path):
    flip(filled, b'"state":"idle"')
    with opened(filled) as journal:
        assert codes(journal) == ["rows_damaged"]
        assert journal.state() is None and journal.saved_boot_id is None
        assert len(pending(journal)) == 8


def test_any_flipped_bit_loses_no_more_than_is_counted(filled: Path, tmp_path: Path):
    # Only the pages in use: the rest of the grown file is empty.
    chance = random.Random(7)
    used = 16 * 4096
    for number in range(60):
        path = copy_of(filled, tmp_path / f"flip-{number}")
        content = bytearray(path.read_bytes())
        content[chance.randrange(used)] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        with opened(path) as journal:
            left = pending(journal)
            assert left == [f"e{n}" for n in range(3, 11) if f"e{n}" in left]
            assert len(left) == 8 or journal.take_findings()
            assert journal.record(None, [event(name="x")])[0]["sequence"] == 11
            assert add_up(journal)


# Death at any time.


# A disk that is full, read-only or not there.


def refuse_writes(journal: Journal) -> None:
    """From now on writes fail as they do on a disk that became read-only."""
    journal.storages.storage.db.execute("PRAGMA query_only = ON")


def test_a_disk_that_fails_moves_the_journal_with_all_it_holds(
    filled: Path, tmp_path: Path
):
    second = tmp_path / "run" / "journal.db"
    with opened(filled, second) as journal:
        refuse_writes(journal)
        recorded = journal.record({"state": "moved"}, [event(name="e11")])
        assert recorded[0]["sequence"] == 11
        assert journal.storages.storage.path == second
        assert "readonly" in (journal.degraded or "")
        assert codes(journal) == ["journal_moved"]
        assert pending(journal) == [f"e{n}" for n in range(3, 12)]
        assert journal.open_commands() == {"c": {"type": "Drain"}}
        counts = journal.counts()
        assert (counts.delivered, counts.rejected) == (1, 1)
        journal.delivered(3)


def test_what_happened_elsewhere_comes_home_at_the_next_start(
    filled: Path, tmp_path: Path
):
    second = tmp_path / "run" / "journal.db"
    with opened(filled, second) as journal:
        refuse_writes(journal)
        journal.record({"state": "moved"}, [event(name="e11")])
        journal.delivered(3)
    for _ in range(2):
        with opened(filled, second) as journal:
            assert journal.storages.storage.path == filled
            assert journal.degraded is None
            assert journal.state() == {"state": "moved"}
            assert pending(journal) == [f"e{n}" for n in range(4, 12)]
            assert journal.counts().delivered == 2
            assert not second.exists()
            assert add_up(journal)


def test_the_counts_move_along_even_when_their_row_is_damaged(
    filled: Path, tmp_path: Path
):
    with opened(filled, tmp_path / "run" / "journal.db") as journal:
        before = journal.counts()
        journal.storages.storage.db.execute("UPDATE facts SET crc = crc + 1")
        refuse_writes(journal)
        journal.delivered(3)
        assert journal.counts().delivered == before.delivered + 1
        assert journal.counts().rejected == before.rejected
        assert add_up(journal)


def test_a_second_failure_moves_on_into_memory_and_a_third_is_the_end(
    filled: Path, tmp_path: Path
):
    with opened(filled, tmp_path / "run" / "journal.db") as journal:
        for name in ("e11", "e12"):
            refuse_writes(journal)
            journal.record(None, [event(name=name)])
        assert journal.storages.storage.path is None
        assert pending(journal) == [f"e{n}" for n in range(3, 13)]
        assert (journal.degraded or "").count(";") == 1
        refuse_writes(journal)
        with pytest.raises(JournalUnusable):
            journal.record(None, [event()])


def damage_index(journal: Journal) -> None:
    """Wipe the index of the pending events on disk: deleting by it finds the damage."""
    storage = journal.storages.storage
    assert storage.path is not None
    (root,) = storage.db.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'pending_by_class'"
    ).fetchone()
    storage.checkpoint()
    with storage.path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(4096))
    storage.db.execute("PRAGMA cache_size = 0")
    storage.db.execute("PRAGMA shrink_memory")
    storage.db.execute("SELECT COUNT(*) FROM recent").fetchone()


def test_damage_found_while_running_gives_a_new_file_in_the_same_place(
    filled: Path, tmp_path: Path
):
    with opened(filled, tmp_path / "run" / "journal.db") as journal:
        damage_index(journal)
        journal.delivered(3)
        assert journal.record(None, [event(name="e11")])[0]["sequence"] == 11
        assert journal.storages.storage.path == filled and journal.degraded is None
        assert pending(journal) == [f"e{n}" for n in range(4, 12)]
        assert add_up(journal)


def test_a_place_whose_new_file_is_damaged_too_is_left(filled: Path, tmp_path: Path):
    second = tmp_path / "run" / "journal.db"
    with opened(filled, second) as journal:
        for number in (3, 4):
            damage_index(journal)
            journal.delivered(number)
        assert journal.storages.storage.path == second and journal.degraded
        assert pending(journal) == [f"e{n}" for n in range(5, 11)]
        assert add_up(journal)


def test_no_place_at_all_is_memory(tmp_path: Path):
    occupied = tmp_path / "file"
    occupied.write_text("")
    with opened(occupied / "a.db", occupied / "b.db") as journal:
        assert journal.degraded and journal.storages.storage.path is None
        assert journal.record({"s": 1}, [event(name="a")])[0]["sequence"] == 1
        assert journal.state() == {"s": 1} and pending(journal) == ["a"]
        journal.storages.storage.checkpoint()


def test_a_place_that_is_not_usable_is_named(tmp_path: Path):
    (tmp_path / "journal.db").mkdir()
    with opened(tmp_path / "journal.db", tmp_path / "run" / "j.db") as journal:
        assert str(tmp_path / "journal.db") in (journal.degraded or "")
        assert journal.storages.storage.path == tmp_path / "run" / "j.db"
        journal.record(None, [event(name="a")])
    (tmp_path / "journal.db").rmdir()
    with opened(tmp_path / "journal.db", tmp_path / "run" / "j.db") as journal:
        assert pending(journal) == ["a"]
        assert journal.storages.storage.path == tmp_path / "journal.db"


@contextlib.contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[Path]:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *arguments, str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    """Take every byte that is left."""
    with contextlib.suppress(OSError), (place / "hog").open("ab", 0) as hog:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while hog.write(bytes(size)):
                    pass


@contextlib.contextmanager
def small_disk(tmp_path: Path, kind: str) -> Iterator[Path]:
    if kind == "tmpfs":
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=24m", "none") as it:
            yield it
        return
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as it:
        yield it


@as_root
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_on_a_full_disk_events_are_recorded_and_delivered(tmp_path: Path, kind: str):
    with small_disk(tmp_path, kind) as disk:
        path = disk / "journal.db"
        with opened(path, tmp_path / "run" / "j.db") as journal:
            fill(disk)
            for number in range(2000):
                text = "x" * 500
                journal.record({"n": number}, [event(name=f"e{number}", text=text)])
            for sequence in range(1, 1501):
                journal.delivered(sequence)
            assert journal.degraded is None
        with opened(path, tmp_path / "run" / "j.db") as journal:
            assert journal.degraded is None and codes(journal) == []
            assert pending(journal) == [f"e{n}" for n in range(1500, 2000)]
            for _ in range(100):
                journal.record(None, [event("JobCompleted", log="x" * 50_000)])
            assert journal.degraded is None and journal.counts().dropped == 0


@as_root
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_that_is_full_at_the_start_sends_the_journal_elsewhere(
    tmp_path: Path, kind: str
):
    with small_disk(tmp_path, kind) as disk:
        fill(disk)
        second = tmp_path / "run" / "j.db"
        with opened(disk / "journal.db", second) as journal:
            assert journal.storages.storage.path == second
            journal.record(None, [event(name="a")])
        (disk / "hog").unlink()
        assert not (disk / "journal.db.new").exists()
        with opened(disk / "journal.db", second) as journal:
            assert journal.degraded is None and pending(journal) == ["a"]


@as_root
def test_contents_without_room_in_the_first_place_stay_in_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with small_disk(tmp_path, "tmpfs") as disk:
        path, second = disk / "journal.db", tmp_path / "run" / "j.db"
        with opened(path, second) as journal:
            refuse_writes(journal)
            results = [
                event("JobCompleted", name=f"e{n}", text="x" * 50_000)
                for n in range(60)
            ]
            journal.record({"s": 1}, results)
        with opened(path):
            pass  # grows the log again
        fill(disk)
        loaded = []
        load = Ledger.load

        def spy(ledger: Ledger, contents: Snapshot, marked: int) -> None:
            loaded.append(len(contents.rows["pending"]))
            load(ledger, contents, marked)

        monkeypatch.setattr(Ledger, "load", spy)
        with opened(path, second) as journal:
            assert journal.storages.storage.path == second and journal.degraded
            assert pending(journal) == [f"e{n}" for n in range(60)]
            assert journal.state() == {"s": 1} and add_up(journal)
        assert loaded == [60, 60]  # never what the first place held, over the newer
        (disk / "hog").unlink()
        with opened(path, second) as journal:
            assert journal.storages.storage.path == path
            assert len(pending(journal)) == 60


@as_root
def test_a_read_only_remount_while_running_moves_the_journal(tmp_path: Path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=24m", "none") as disk:
        path, second = disk / "journal.db", tmp_path / "run" / "j.db"
        remount = ["mount", "-o", "remount,ro", str(disk)]
        died(path, lambda journal: journal.record({"s": 1}, [event(name="a")]))
        subprocess.run(remount, check=True)
        with opened(path, second) as journal:
            assert journal.storages.storage.path == second
            assert pending(journal) == ["a"] and journal.state() == {"s": 1}
            journal.record({"s": 2}, [event(name="b")])
            journal.delivered(1)
        with opened(path, second) as journal:
            assert pending(journal) == ["b"] and journal.degraded
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        with opened(path, second) as journal:
            assert pending(journal) == ["b"] and journal.degraded is None
            assert journal.state() == {"s": 2} and add_up(journal)


def test_a_limit_on_file_sizes_is_met_without_a_loss(tmp_path: Path):
    # Stands in for a full disk where nobody may mount: EFBIG instead of ENOSPC.
    path, second = tmp_path / "a" / "j.db", tmp_path / "b" / "j.db"
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
        journal = Journal.open([path, second], "boot")
        journal.record({"s": 1}, [event(name="a")])
        ok = journal.degraded and journal.storages.storage.path is None
        os._exit(0 if ok and pending(journal) == ["a"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
