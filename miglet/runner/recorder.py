"""Writes down how a transient unit ended: its `ExecStopPost=` is `keep.py recorder`.

It runs whatever ended the unit, the shim's death included, while the control group
is still there to be read. It writes beside the record of that very invocation, or not
at all: by now the place may be another run's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping

from miglet.runner import cgroup, shim


def ending(environment: Mapping[str, str], group: str | None) -> dict:
    """The record: what systemd tells (systemd.exec(5)), and what was used."""
    told = {
        "invocation_id": environment.get("INVOCATION_ID"),
        "result": environment.get("SERVICE_RESULT"),
        "code": environment.get("EXIT_CODE"),
        "status": environment.get("EXIT_STATUS"),
        "ended_at": time.time(),
    }
    return {**told, **used(group)} if group else told


def used(group: str) -> dict:
    """What the group has used, and how often it was short of memory."""
    kills = cgroup.oom_kills(group)
    return cgroup.figures(group) | ({} if kills is None else {"oom_kills": kills})


def recorded_invocation() -> str | None:
    """Whose record is in the working directory; None: nobody's that can be read."""
    try:
        with open("run.json", "rb") as file:
            return json.load(file)["unit"]["invocation_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main(folder: str) -> None:
    """Record the end in `folder`, if what is in it is what has ended."""
    try:
        # Renamed under us the folder is still the same: no successor's is written to.
        os.chdir(folder)
    except FileNotFoundError:
        sys.exit(0)
    os.umask(0o077)
    document = ending(os.environ, cgroup.own())
    if document["invocation_id"] and recorded_invocation() == document["invocation_id"]:
        shim.record(".", "stop.json", document)
