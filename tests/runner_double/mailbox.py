"""What the test says to a running double: messages, and permits to go on.

Everything is a file that exists before the process is woken, so nothing is lost when
the double is not there yet; whoever manages to unlink a file has taken it.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from tests.runner_double.event_loop import wake

_count = itertools.count()


def put(root: Path, folder: str, kind: str, content: dict[str, Any]) -> None:
    """Lay a message of `kind` into `double/FOLDER` and wake the double."""
    number = f"{time.monotonic_ns():020}-{os.getpid()}-{next(_count)}"
    target = root / "double" / folder / f"{number}-{kind}.json"
    fresh = root / "double" / f".{target.name}"
    fresh.write_text(json.dumps(content))
    fresh.chmod(0o666)
    os.replace(fresh, target)
    wake((root / "double" / "wakeups").iterdir())


def take(
    root: Path, folder: str, kinds: set[str] | None = None
) -> dict[str, Any] | None:
    """The oldest message of these kinds, if there is one; it is gone after that."""
    for path in sorted((root / "double" / folder).iterdir()):
        kind = path.stem.split("-", 3)[-1]
        if kinds is None or kind in kinds:
            try:
                content = path.read_text()
                path.unlink()
            except FileNotFoundError:  # somebody else was quicker
                continue
            return {"kind": kind, **json.loads(content)}
    return None
