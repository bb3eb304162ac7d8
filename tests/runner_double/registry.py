"""The part of GitHub that the double needs: who is registered, and whose turn it is.

Every change is made under a file lock and put in place by a rename, so that a killed
process leaves a whole register. Tokens are kept as SHA-256 sums, never as text.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EMPTY: dict[str, Any] = {
    "runners": {},
    "deleted": [],
    "history": [],
    "turns": {},
    "next_id": 21,
    "jobs": 0,
}


def create(root: Path) -> None:
    """An empty register."""
    write(root, EMPTY)


def write(root: Path, register: dict[str, Any]) -> None:
    fresh = root / "double" / f"registry.{os.getpid()}"
    fresh.write_text(json.dumps(register, indent=1))
    os.replace(fresh, root / "double" / "registry.json")


def read(root: Path) -> dict[str, Any]:
    """The register as it is now."""
    return json.loads((root / "double" / "registry.json").read_text())


@contextmanager
def changing(root: Path) -> Iterator[dict[str, Any]]:
    """The register, to be changed by nobody else meanwhile."""
    with (root / "double" / "registry.lock").open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        register = read(root)
        yield register
        write(root, register)


def turn(root: Path, of: str) -> int:
    """How many calls of this sort there were before this one."""
    with changing(root) as register:
        before = register["turns"].get(of, 0)
        register["turns"][of] = before + 1
    return before


def fingerprint(token: str) -> str | None:
    """The SHA-256 sum of `token`; None if there is none."""
    if not token:
        return None
    return hashlib.sha256(token.encode()).hexdigest()


def note(root: Path, event: str, **details: Any) -> None:
    """Add to the history what the service has seen."""
    with changing(root) as register:
        register["history"].append({"at": time.time(), "event": event, **details})


def is_taken(root: Path, name: str) -> bool:
    return name in read(root)["runners"]


def register(root: Path, name: str, **details: Any) -> int:
    """Register runner `name` and return its id."""
    with changing(root) as register:
        agent_id = register["next_id"]
        register["next_id"] += 1
        event = "replaced" if name in register["runners"] else "registered"
        entry = {"agentId": agent_id, **details}
        register["runners"][name] = entry
        register["deleted"] = [gone for gone in register["deleted"] if gone != name]
        register["history"].append(
            {"at": time.time(), "event": event, "name": name, **entry}
        )
    return agent_id


def drop(root: Path, name: str, event: str) -> bool:
    """Drop runner `name`; False if there was none."""
    with changing(root) as register:
        known = register["runners"].pop(name, None) is not None
        register["deleted"].append(name)
        if known:
            register["history"].append(
                {"at": time.time(), "event": event, "name": name}
            )
    return known


def next_job(root: Path) -> int:
    """The number of the next job, counted from 0."""
    with changing(root) as register:
        number = register["jobs"]
        register["jobs"] += 1
    return number
