"""Journals with something in them, and their files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from miglet.journal.journal import Journal


def event(kind: str = "JobStarted", name: str = "", **data: object) -> dict:
    return {"id": name, "type": kind, "data": data}


def copy_of(path: Path, place: Path) -> Path:
    """What another process would find if this one were killed now."""
    place.mkdir(parents=True)
    for ending in ("", "-wal", "-sequence"):
        shutil.copy(path.with_name(path.name + ending), place)
    return place / path.name


def pending(journal: Journal) -> list[str]:
    rows = journal.storages.read(
        lambda db: db.execute("SELECT body FROM pending ORDER BY sequence").fetchall()
    )
    return [str(row[0]).split('"id":"')[1].split('"')[0] for row in rows]


def add_up(journal: Journal) -> bool:
    counters = journal.storages.storage.counters
    return counters.pending == len(pending(journal))


@contextlib.contextmanager
def opened(*paths: Path, boot: str = "boot") -> Iterator[Journal]:
    with contextlib.closing(Journal.open(paths, boot)) as journal:
        yield journal


def codes(journal: Journal) -> list[str]:
    return [found.code for found in journal.take_findings()]


def died(path: Path, work: Callable[[Journal], object]) -> None:
    """Do `work` on the journal in a process that dies without closing it."""
    pid = os.fork()
    if pid == 0:
        work(Journal.open([path], "boot"))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
