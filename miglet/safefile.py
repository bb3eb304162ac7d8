"""Files that others may change: what tells that one has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Fingerprint(NamedTuple):
    """What changes about a file when its content does."""

    modified_ns: int
    inode: int
    size: int


def fingerprint(path: str | Path) -> Fingerprint:
    """Today's fingerprint of the file; raises OSError if there is none."""
    seen = os.stat(path)
    return Fingerprint(seen.st_mtime_ns, seen.st_ino, seen.st_size)
