"""Checks of disks: room for jobs and for the journal, folders, mounts.

A disk that does not answer keeps its check waiting, and so is found out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from miglet.bootstrap import framework
from miglet.config.settings import Settings
from miglet.metrics.disk import existing

#: Fewer free inodes than this and an ordinary checkout may fail.
JOB_INODES = 50_000

#: What the journal may need at its largest; the socket and the job's reports.
STATE_BYTES = 32_000_000
RUNTIME_BYTES = 1_000_000

#: Inodes that MIGlet's own few files may need.
OWN_INODES = 100


class Need(NamedTuple):
    """What must be free where `path` is."""

    path: Path
    size_bytes: int
    inodes: int


def own_needs(settings: Settings) -> list[Need]:
    """What MIGlet itself needs; it goes on without, but less safely."""
    return [
        Need(existing(Path(settings.paths.state)), STATE_BYTES, OWN_INODES),
        Need(existing(Path(settings.paths.runtime)), RUNTIME_BYTES, OWN_INODES),
    ]


def job_need(settings: Settings) -> Need:
    """What a job needs; the work folder may be on a disk of its own."""
    work = existing(Path(settings.runner.directory) / "_work")
    return Need(work, settings.bootstrap.min_free_disk, JOB_INODES)


@framework.check
def free_disk(settings: Settings, deadline: float) -> str:
    """Jobs and the journal have room."""
    job = job_need(settings)
    hint = "give the machine a larger disk, or see bootstrap.min_free_disk"
    if short := lacking(job):
        raise framework.Unavailable(short, hint)
    for need in own_needs(settings):
        if short := lacking(need):
            raise framework.CheckWarning(
                short, "events may be lost: remove files, or see paths"
            )
    places = dict.fromkeys([job.path, *(need.path for need in own_needs(settings))])
    return ", ".join(f"{amount(free_bytes(path))} at {path}" for path in places)


def lacking(need: Need) -> str:
    """How much room is missing; empty if there is enough."""
    free = free_bytes(need.path)
    if free >= need.size_bytes:
        return ""
    return f"{amount(free)} free at {need.path}, {amount(need.size_bytes)} wanted"


def free_bytes(path: Path) -> int:
    """Room for anybody but root."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def amount(size: int) -> str:
    """A size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@framework.check
def free_inodes(settings: Settings, deadline: float) -> str:
    """Jobs can make files; a file system without a limit has enough."""
    for need in (job_need(settings), *own_needs(settings)):
        disk = os.statvfs(need.path)
        if disk.f_files and disk.f_favail < need.inodes:
            hint = "remove files, or make that disk with more inodes"
            raise framework.CheckWarning(
                f"only {disk.f_favail} inodes free at {need.path}", hint
            )
    disk = os.statvfs(job_need(settings).path)
    return f"{disk.f_favail} free" if disk.f_files else "without limit"


@framework.check
def folders_writable(settings: Settings, deadline: float) -> str:
    """MIGlet can keep its state and open its socket."""
    paths = settings.paths
    for key, folder in (("state", paths.state), ("runtime", paths.runtime)):
        path = existing(Path(folder))
        if not path.is_dir():
            raise framework.Misconfiguration(
                f"{path} is not a folder", f"set paths.{key}"
            )
        if not os.access(path, os.W_OK | os.X_OK):
            hint = f"let MIGlet's user write there, or set paths.{key}"
            raise framework.Misconfiguration(f"{path} is not writable", hint)
    return f"{paths.state}, {paths.runtime}"


@framework.check
def mounts(settings: Settings, deadline: float) -> str:
    """Every mount that jobs count on is there, and can be written to."""
    missing = list(unusable(settings.bootstrap.mounts))
    if missing:
        hint = "see bootstrap.mounts, fstab(5) and the instance's disks"
        raise framework.Unavailable("; ".join(missing), hint)
    return ", ".join(settings.bootstrap.mounts) or "none wanted"


def unusable(wanted: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with each of these mount points."""
    there = mount_points() if wanted else set()
    for path in wanted:
        if not os.path.exists(path):
            yield f"{path} does not exist"
        elif os.path.realpath(path) not in there:
            yield f"{path} is not a mount point"
        elif os.statvfs(path).f_flag & os.ST_RDONLY:
            yield f"{path} is mounted read-only"
        elif not os.access(path, os.W_OK):
            yield f"{path} is not writable"


def mount_points() -> set[str]:
    """Where something is mounted, bind mounts too (proc_pid_mountinfo(5))."""
    text = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    return {unescaped(line.split(" ")[4]) for line in text.splitlines()}


def unescaped(path: str) -> str:
    """A path as the kernel writes it, with octal numbers for white space."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)
