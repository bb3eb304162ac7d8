"""How many commits a second the journal makes: one event and one state each."""

from __future__ import annotations

import time
from pathlib import Path

from miglet.journal.journal import Journal


def commits_per_second(path: Path, seconds: float) -> float:
    """Record for about `seconds` in a new journal at `path`; commits per second.

    Delivers each event too, so that the figure is that of a journal that does not fill.
    """
    journal = Journal.open([path], "bench")
    event = {"type": "JobStarted", "data": {"name": "x" * 300}}
    commits, begun = 0, time.monotonic()
    while time.monotonic() < begun + seconds:
        (recorded,) = journal.record({"state": "idle"}, [event])
        journal.delivered(recorded["sequence"])
        commits += 2
    elapsed = time.monotonic() - begun
    journal.close()
    return commits / elapsed
