"""In a short-lived child: loads the configuration, then checks the machine.

Two facts come of it: SettingsLoaded as soon as the configuration is known (or
SettingsRefused), and PreflightDone when every check has been made. A FaultNoted
between them says that there was no metadata, where there should have been.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil

from miglet import __version__
from miglet.bootstrap import framework
from miglet.config.load import NOWHERE, explanation, fallback_settings
from miglet.config.settings import Settings
from miglet.errors import UNAVAILABLE, Misconfigured
from miglet.messages.facts import PreflightDone, SettingsLoaded, SettingsRefused
from miglet.metadata.sources import Sources, keep_token, sources_of
from miglet.metrics.machine import existing
from miglet.runner.identity import ProcIncomplete, boot_id
from miglet.runner.installation import runner_version
from miglet.supervisor.queues import Queue


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
    report = [*found.checks(), *framework.report(loaded.settings)]
    try:
        description = (
            machine(loaded.settings) | found.identity() | {"timeline": timeline}
        )
    except ProcIncomplete:
        # the parent needs the boot's id first: it has said so, and ended
        return
    queue.put(PreflightDone(report, description))


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


def machine(settings: Settings) -> dict[str, Any]:
    """What VMStarted says of the machine, whatever cloud it is in."""
    directory = Path(settings.runner.directory)
    return {
        "version": __version__,
        "boot_id": boot_id(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "disk_bytes": psutil.disk_usage(str(existing(directory))).total,
        "runner_version": runner_version(directory),
    }
