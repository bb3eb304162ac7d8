"""Records how a transient unit ended: its `ExecStopPost=` is `keep.py recorder FOLDER`.

It runs whatever ended the unit, the shim's death included, while the control group
still exists. It writes beside the record of that very invocation, or not at all: by now
the folder may be another run's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping

from miglet.runner import cgroup, shim


def stop_record(environment: Mapping[str, str], group: str | None) -> dict:
    """What systemd says (systemd.exec(5)), and what the control group has used."""
    stopped = {
        "invocation_id": environment.get("INVOCATION_ID"),
        "result": environment.get("SERVICE_RESULT"),
        "code": environment.get("EXIT_CODE"),
        "status": environment.get("EXIT_STATUS"),
        "ended_at": time.time(),
    }
    if group is None:
        return stopped
    oom_kills = cgroup.oom_kills(group)
    counted = {} if oom_kills is None else {"oom_kills": oom_kills}
    return {**stopped, **cgroup.figures(group), **counted}


def recorded_invocation() -> str | None:
    """The invocation of the run in the working directory; None if it has no record."""
    try:
        with open(shim.RUN_RECORD, "rb") as file:
            return json.load(file)["unit"]["invocation_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main(folder: str) -> None:
    """Record the end in `folder`, if its run is the one that has ended."""
    try:
        # Renamed under us the folder is still the same: no successor's is written to.
        os.chdir(folder)
    except FileNotFoundError:
        sys.exit(0)
    os.umask(0o077)
    document = stop_record(os.environ, cgroup.own())
    if document["invocation_id"] and recorded_invocation() == document["invocation_id"]:
        shim.record(".", "stop.json", document)
