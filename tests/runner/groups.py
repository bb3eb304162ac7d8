"""Control groups for tests: folders with the kernel's files."""

from __future__ import annotations

from pathlib import Path


def group(folder: Path, **files: str) -> str:
    """A control group with these files; a dot in a name is two underscores."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return str(folder)
