"""Checks of the system: control groups, systemd, and who else is at work."""

from __future__ import annotations

import os
import re
from pathlib import Path

from miglet.bootstrap.framework import CheckWarning, brief_check
from miglet.config.settings import Settings

#: Seconds that the boot waits for what is only nice to know.
BRIEF_SECONDS = 1.0

#: Where an enabled unit of unattended upgrades is linked, below the systemd folder.
UPGRADES = (
    "timers.target.wants/apt-daily.timer",
    "timers.target.wants/apt-daily-upgrade.timer",
    "multi-user.target.wants/unattended-upgrades.service",
)

#: A line of apt.conf(5) about what the timers do; see apt.systemd.daily.
PERIODIC = re.compile(r'^\s*APT::Periodic::([\w-]+)\s+"([^"]*)"', re.MULTILINE)

#: What takes dpkg's lock, or changes packages; nothing is done where none is set.
DISTURBING = {
    "Update-Package-Lists",
    "Download-Upgradeable-Packages",
    "Unattended-Upgrade",
}


@brief_check(BRIEF_SECONDS)
def control_groups(settings: Settings, deadline: float) -> str:
    """Which version of control groups the kernel offers."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "version 2"
    if Path("/sys/fs/cgroup/memory").exists():
        return "version 1"
    return "none to be seen"


@brief_check(BRIEF_SECONDS)
def init_system(settings: Settings, deadline: float) -> str:
    """Whether systemd runs the machine (sd_booted(3))."""
    return "systemd" if Path("/run/systemd/system").is_dir() else "not systemd"


@brief_check(BRIEF_SECONDS)
def unattended_upgrades(settings: Settings, deadline: float) -> str:
    """Nobody replaces packages, or holds dpkg's lock, in the middle of a job."""
    active = upgrades(Path("/etc"))
    if active:
        hint = f"when the image is built: systemctl mask {' '.join(active)}"
        raise CheckWarning(f"enabled: {', '.join(active)}", hint)
    return "not active"


def upgrades(etc: Path) -> list[str]:
    """The units that are enabled, not masked, and have something to do."""
    if not disturbing(etc / "apt" / "apt.conf.d"):
        return []
    system = etc / "systemd" / "system"
    enabled = [link for link in UPGRADES if (system / link).is_symlink()]
    names = [link.partition("/")[2] for link in enabled]
    return [name for name in names if not masked(system / name)]


def masked(unit: Path) -> bool:
    """Whether a unit is linked to nothing, as ``systemctl mask`` does."""
    return unit.is_symlink() and os.readlink(unit) == "/dev/null"


def disturbing(folder: Path) -> bool:
    """Whether apt is configured to work by itself; the last file wins."""
    chosen: dict[str, str] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in ("", ".conf") and path.is_file():
            chosen |= dict(PERIODIC.findall(path.read_text("utf-8", "replace")))
    wanted = any(chosen.get(name, "0") not in ("0", "") for name in DISTURBING)
    return wanted and chosen.get("Enable", "1") != "0"
