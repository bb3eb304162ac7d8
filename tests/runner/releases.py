"""Releases of the runner as archives, and a user whose jobs attack them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from miglet.supervisor.privileges import Account

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can own files as root")

JOB = Account("nobody", 65534, 65534, "/")

GOOD = {
    "./config.sh": (0o755, "#!/bin/sh\n"),
    "./env.sh": (0o755, ""),
    "./bin/Runner.Listener": (0o777, "ELF"),
    "./bin/Runner.Worker": (0o755, "ELF"),
    "./bin/Runner.Listener.deps.json": (0o666, '{"Runner.Listener/2.329.0": {}}'),
    "./externals/node20/bin/node": (0o755, "ELF"),
}


def archive(path: Path, files=GOOD, links=(), more=()) -> Path:
    """A release with these files (mode, text), symbolic links and other members."""
    with tarfile.open(path, "w:gz") as made:
        for name, (mode, text) in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size, member.uid = mode, len(text), 1001
            made.addfile(member, io.BytesIO(text.encode()))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            made.addfile(member)
        for member in more:
            made.addfile(member)
    return path
