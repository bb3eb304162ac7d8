"""In a short-lived child: loads the configuration, then checks the machine.

Two facts come of it: SettingsLoaded as soon as the configuration is known (or
SettingsRefused), and PreflightDone when every check has been made.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil

from miglet import __version__, preflight
from miglet.config.explanation import explanation
from miglet.config.files import layers_of
from miglet.config.loading import load, salvage
from miglet.config.settings import Settings
from miglet.errors import Misconfigured
from miglet.facts import PreflightDone, SettingsLoaded, SettingsRefused
from miglet.queues import Queue
from miglet.runner.folder import runner_version
from miglet.runner.identity import boot_id


def main(queue: Queue, sources: dict[str, Any]) -> None:
    """The child's life; `sources` are the arguments of `layers_of`."""
    layers = layers_of(os.environ, **sources)
    try:
        loaded = load(layers)
    except Misconfigured as error:
        faults = [fault._asdict() for fault in error.faults]
        rest = salvage(layers)
        queue.put(SettingsRefused(faults, rest.as_dict() if rest else None))
        return
    queue.put(SettingsLoaded(loaded.settings.as_dict(), explanation(loaded)))
    report = preflight.report(loaded.settings)
    queue.put(PreflightDone(report, machine(loaded.settings)))


def machine(settings: Settings) -> dict[str, Any]:
    """What VMStarted says of the machine."""
    directory = Path(settings.runner.directory)
    return {
        "version": __version__,
        "boot_id": boot_id(),
        "cloud": None,
        "zone": None,
        "machine_type": None,
        "image": None,
        "cpu_count": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "disk_bytes": psutil.disk_usage(str(existing(directory))).total,
        "runner_version": runner_version(directory),
        "timeline": {},
    }


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
