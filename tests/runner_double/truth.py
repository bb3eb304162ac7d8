"""What really happened, recorded by the process to which it happened.

Each record is one O_APPEND write, so that records of several processes never mix, but
a reader may still see the first part of the last one. Its `mono` stamp is taken just
before the thing it tells of can be seen by anybody.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def record(root: Path, what: str, **details: Any) -> None:
    """Add one record to `double/truth.jsonl` below `root`."""
    entry = {
        "at": time.time(),
        "mono": time.monotonic(),
        "pid": os.getpid(),
        "what": what,
        **details,
    }
    line = json.dumps(entry).encode() + b"\n"
    path = root / "double" / "truth.jsonl"
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(target, line)
    os.close(target)


def records(root: Path, what: str | None = None) -> list[dict[str, Any]]:
    """The records so far, oldest first; only those named `what` if it is given."""
    lines = whole_lines((root / "double" / "truth.jsonl").read_text())
    entries = [json.loads(line) for line in lines]
    return [entry for entry in entries if what in (None, entry["what"])]


def whole_lines(text: str) -> list[str]:
    """The lines of a file that is still written to, without a last one that is cut."""
    return text[: text.rfind("\n") + 1].splitlines()
