"""Which launcher a machine gets: transient units where systemd runs, else sessions.

Only the start differs. What one launcher started any other finds, so that a machine
whose settings change between two starts of MIGlet keeps its runner.
"""

from __future__ import annotations

from pathlib import Path

from miglet.config.settings import Settings
from miglet.runner import transient
from miglet.runner.launcher import Launcher, in_session
from miglet.runner.transient import Transient
from miglet.supervisor.systemd import systemd_usable


def runner_launcher(settings: Settings) -> Launcher:
    """What starts and finds the runner."""
    return launcher(settings, "runner", transient.RUNNER)


def configuration_launcher(settings: Settings) -> Launcher:
    """What starts and finds config.sh."""
    return launcher(settings, "configuration", transient.CONFIGURATION)


def launcher(settings: Settings, name: str, kind: Transient) -> Launcher:
    """A launcher whose runs are in the folder `name`, as the settings want it."""
    root = Path(settings.paths.runtime) / name
    in_unit = unit_wanted(settings.runner.isolation, systemd_usable())
    return Launcher(root, kind.begin if in_unit else in_session)


def unit_wanted(isolation: str, usable: bool) -> bool:
    """Whether to launch in a unit; preflight has refused what cannot be had."""
    return isolation == "systemd" or (isolation == "auto" and usable)
