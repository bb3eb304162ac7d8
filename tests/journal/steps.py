"""Steps to record."""

from __future__ import annotations

from miglet.journal.journal import Journal


def event(kind: str = "JobStarted", **data: object) -> dict:
    return {"type": kind, "timestamp": "2026-01-15T10:30:00Z", "data": data}


def reopened(journal: Journal, boot: str = "boot-1") -> Journal:
    """The same file in a new journal, as after a restart."""
    path = journal.storages.storage.path
    assert path is not None
    journal.close()
    journal.storages = Journal.open([path], boot).storages
    return Journal(journal.storages, boot, None)
