"""The clean-up at a job's end: what it left running, known by its environment."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def running() -> set[int]:
    """All process ids of the machine."""
    return {
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    }


def belongs(pid: int, tracking_id: str) -> bool:
    """Whether the process carries this job's RUNNER_TRACKING_ID, if we may see it."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # ended, or another user's
        return False
    return f"RUNNER_TRACKING_ID={tracking_id}".encode() in environment.split(b"\0")


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def terminate(before: set[int], tracking_id: str) -> list[tuple[int, str]]:
    """Kill what is new since `before` and belongs to the job; pids and names."""
    found = []
    for pid in sorted(running() - before):
        if pid != os.getpid() and belongs(pid, tracking_id):
            found.append((pid, name_of(pid)))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    return found
