"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from miglet.journal.journal import Journal
from tests.journal.files import event, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal.open([path], "boot-1")
    yield opened
    opened.close()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A closed journal with ten events, of which two are gone."""
    path = tmp_path / "one" / "journal.db"
    with opened(path) as journal:
        journal.record({"state": "idle"}, [event(name=f"e{n}") for n in range(1, 11)])
        journal.record(None, [], {"c": {"type": "Drain"}})
        journal.delivered(1)
        journal.refused(2, 400, "no")
    return path
