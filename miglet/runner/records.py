"""The files in a run's folder: read as they are found, removed as a whole.

Others wrote them, and may have been killed while they did: what cannot be read is not
there.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

#: A record is far smaller; what is larger is none.
RECORD_LIMIT_BYTES = 1 << 20


def discard(folder: Path) -> None:
    """Remove `folder` so that no half of it can be taken for a run."""
    doomed = folder.with_name(f"{folder.name}.forgotten")
    shutil.rmtree(doomed, ignore_errors=True)
    if folder.exists():
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def read_record(path: Path) -> dict[str, Any] | None:
    """A record of the shim's; None when there is none that can be read."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(RECORD_LIMIT_BYTES))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def tail(path: Path, limit_bytes: int) -> bytes:
    """The last bytes of a file; empty when it is not there."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit_bytes))
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""
