"""Control groups of the test's own, of version 1 or 2, for real limits."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import eventually

TOP = Path("/sys/fs/cgroup")

#: The file with the limit, by controller, in version 1 and in version 2.
LIMITS = {
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "pids": ("pids.max", "pids.max"),
}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")


@dataclass
class Group:
    """One control group."""

    folder: Path
    limit_path: Path

    def take(self, *pids: int) -> None:
        """Move processes into it; their children follow."""
        for pid in pids:
            (self.folder / "cgroup.procs").write_text(str(pid))

    def limit(self, number: int | str) -> None:
        """Bytes or processes; "max" for none."""
        self.limit_path.write_text(str(number))

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.folder / "cgroup.procs").read_text().split()]


@contextlib.contextmanager
def group_of(controller: str) -> Iterator[Group]:
    """A new group with this controller; skips the test where there is none."""
    name = f"miglet-test-{uuid.uuid4().hex[:8]}"
    first, second = LIMITS[controller]
    if (TOP / controller).is_dir():
        folder, file = TOP / controller / name, first
    elif controller in text_of(TOP / "cgroup.subtree_control").split():
        folder, file = TOP / name, second
    else:
        pytest.skip(f"no {controller} controller of control groups here")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    group = Group(folder, folder / file)
    try:
        yield group
    finally:
        eventually(lambda: not group.pids(), 20, "an empty control group")
        folder.rmdir()


def text_of(path: Path) -> str:
    """What the file holds; nothing where there is none."""
    return path.read_text() if path.exists() else ""
