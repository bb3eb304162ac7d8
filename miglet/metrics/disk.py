"""Which disk a path is on that may not exist yet."""

from __future__ import annotations

from pathlib import Path


def existing(path: Path) -> Path:
    """`path`, or its nearest parent that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), path)
