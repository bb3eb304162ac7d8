"""The second phase of the bootstrap: the checks of the machine, and its description.

`framework` says what a check is and runs them all side by side within
``bootstrap.timeout``. Each module that is imported here for its checks registers those
of one kind.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from miglet import __version__
from miglet.bootstrap import (
    credentials,
    disk,
    docker,
    framework,
    machine,
    network,
    runner,
)
from miglet.config.settings import Settings
from miglet.messages.facts import PreflightDone
from miglet.metadata.sources import Sources
from miglet.metrics.disk import existing
from miglet.runner.identity import boot_id
from miglet.runner.installation import runner_version

#: The modules with checks.
MODULES = (credentials, disk, docker, machine, network, runner)


def preflight(
    found: Sources, settings: Settings, timeline: dict[str, float]
) -> PreflightDone:
    """Check the machine, and describe it; raises ProcIncomplete."""
    description = describe(settings) | found.identity() | {"timeline": timeline}
    return PreflightDone(report(found, settings), description)


def report(found: Sources, settings: Settings) -> list[framework.Row]:
    """A row for each check: of the metadata first, then of the machine."""
    return [*found.checks(), *framework.report(settings)]


def describe(settings: Settings) -> dict[str, Any]:
    """What VMStarted says of the machine, whatever cloud it is in.

    Without psutil: the start would have to wait for its import.
    """
    directory = Path(settings.runner.directory)
    return {
        "version": __version__,
        "boot_id": boot_id(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "disk_bytes": shutil.disk_usage(existing(directory)).total,
        "runner_version": runner_version(directory),
    }
