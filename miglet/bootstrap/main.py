"""In a short-lived child: loads the configuration, then checks the machine.

Two facts come of it: SettingsLoaded as soon as the configuration is known (or
SettingsRefused), and PreflightDone when every check has been made. A FaultNoted
between them says that there was no metadata, where there should have been.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from typing import Any

# First: it has to spare this process what the imports below would bring along.
from miglet.supervisor import lean_jsonschema  # noqa: F401

# isort: split
from miglet.config.load import NOWHERE, explanation, fallback_settings
from miglet.errors import UNAVAILABLE, Misconfigured
from miglet.messages.facts import SettingsLoaded, SettingsRefused
from miglet.metadata.sources import Sources, keep_token, sources_of
from miglet.runner.identity import ProcIncomplete
from miglet.supervisor.queues import Queue

#: Imported when the settings have been reported: the parent waits for those, and what
#: the checks need takes a third of the time of all that this child imports.
PREFLIGHT = "miglet.bootstrap.preflight"


def main(queue: Queue, sources: dict[str, Any]) -> None:
    """The child's life; `sources` are the arguments of `sources_of`."""
    found = sources_of(os.environ, sources)
    timeline = {"metadata": round(time.monotonic() * 1000, 1)} if found.cloud else {}
    try:
        loaded = found.loaded()
        keep_token(found, loaded.settings)
    except Misconfigured as error:
        queue.put(refused(found, error))
        return
    queue.put(SettingsLoaded(loaded.settings.as_dict(), explanation(loaded)))
    note = found.note()
    if note:
        queue.put(note)
    preflight = importlib.import_module(PREFLIGHT).preflight
    # Where the boot's id cannot be read, the parent has said so, and ended.
    with contextlib.suppress(ProcIncomplete):
        queue.put(preflight(found, loaded.settings, timeline))


def refused(found: Sources, error: Misconfigured) -> SettingsRefused:
    """Every fault, and settings to tell the controller of them if that is possible."""
    rest = fallback_settings(found.layers)
    try:
        if rest:
            keep_token(found, rest)
    except Misconfigured:
        # It is among the faults, or nobody will let us in to tell the others.
        rest = None
    faults = [fault._asdict() for fault in error.faults]
    settings = rest.as_dict() if rest else None
    # What only metadata can provide may be there at the next start.
    lacking = found.error and all(fault.source == NOWHERE for fault in error.faults)
    status = UNAVAILABLE if lacking else error.exit_status
    return SettingsRefused(faults, settings, status)
