"""Checks of the machine: room, folders, mounts, control groups, who else is at work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from miglet.config.settings import Settings
from miglet.preflight.registry import Misconfiguration, Notable, Unavailable, check

#: Fewer free inodes than this and an ordinary checkout may fail.
FEWEST_INODES = 50_000

#: Where an enabled timer of unattended upgrades is linked.
UPGRADES = (
    Path("/etc/systemd/system/timers.target.wants/apt-daily-upgrade.timer"),
    Path("/etc/systemd/system/timers.target.wants/apt-daily.timer"),
    Path("/etc/systemd/system/multi-user.target.wants/unattended-upgrades.service"),
)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _places(settings: Settings) -> dict[str, Path]:
    """The folders on whose disks MIGlet and its jobs write."""
    return {
        "runner.directory": Path(settings.runner.directory),
        "paths.state": Path(settings.paths.state),
    }


@check
def free_disk(settings: Settings, deadline: float) -> str:
    """Jobs and the journal have room."""
    wanted = settings.bootstrap.min_free_disk
    told = []
    for key, path in _places(settings).items():
        disk = os.statvfs(_existing(path))
        free = disk.f_bavail * disk.f_frsize
        if free < wanted and key == "runner.directory":
            hint = "give the machine a larger disk, or see bootstrap.min_free_disk"
            found = f"{free / 1e9:.1f} GB free at {path}, {wanted / 1e9:.1f} GB wanted"
            raise Unavailable(found, hint)
        told.append(f"{free / 1e9:.1f} GB at {path}")
    return ", ".join(told)


@check
def free_inodes(settings: Settings, deadline: float) -> str:
    """Jobs can make files; a file system without a limit has enough."""
    path = _existing(Path(settings.runner.directory))
    disk = os.statvfs(path)
    if disk.f_files and disk.f_favail < FEWEST_INODES:
        hint = "a checkout may fail: remove files, or make the disk with more inodes"
        raise Notable(f"only {disk.f_favail} inodes are free at {path}", hint)
    return f"{disk.f_favail} free" if disk.f_files else "without limit"


@check
def folders_writable(settings: Settings, deadline: float) -> str:
    """MIGlet can keep its state and open its socket."""
    keys = ("paths.state", "paths.runtime")
    for key in keys:
        path = _existing(Path(settings[key]))
        if not os.access(path, os.W_OK | os.X_OK):
            hint = f"let MIGlet's user write there, or set {key}"
            raise Misconfiguration(f"{path} is not writable", hint)
    return ", ".join(settings[key] for key in keys)


@check
def mounts(settings: Settings, deadline: float) -> str:
    """Every mount that jobs count on is there, and can be written to."""
    missing = list(_unusable(settings.bootstrap.mounts))
    if missing:
        hint = "see bootstrap.mounts, fstab(5) and the instance's disks"
        raise Unavailable("; ".join(missing), hint)
    return ", ".join(settings.bootstrap.mounts) or "none wanted"


def _unusable(wanted: tuple[str, ...]) -> Iterator[str]:
    for name in wanted:
        path = Path(name)
        if not path.is_mount():
            yield f"{path} is not a mount point"
        elif os.statvfs(path).f_flag & os.ST_RDONLY:
            yield f"{path} is mounted read-only"


@check
def control_groups(settings: Settings, deadline: float) -> str:
    """Which version of control groups the kernel offers."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "version 2"
    if Path("/sys/fs/cgroup/memory").exists():
        return "version 1"
    return "none to be seen"


@check
def init_system(settings: Settings, deadline: float) -> str:
    """Whether systemd runs the machine."""
    return "systemd" if Path("/run/systemd/system").is_dir() else "not systemd"


@check
def unattended_upgrades(settings: Settings, deadline: float) -> str:
    """Nobody replaces packages, or holds dpkg's lock, in the middle of a job."""
    active = [path.name for path in UPGRADES if path.is_symlink() or path.exists()]
    if active:
        hint = "systemctl disable apt-daily.timer apt-daily-upgrade.timer in the image"
        raise Notable(f"enabled: {', '.join(active)}", hint)
    return "not active"
