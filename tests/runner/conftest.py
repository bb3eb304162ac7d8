"""A release that is installed where nobody but root can write."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from miglet.runner.release import install_release
from tests.runner.releases import JOB, archive


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place whose parents are root's: below /var/lib, where nobody else writes."""
    top = Path(tempfile.mkdtemp(dir="/var/lib" if os.geteuid() == 0 else None))
    top.chmod(0o755)
    yield top / "actions-runner"
    shutil.rmtree(top)


@pytest.fixture
def installed(tmp_path, folder) -> Path:
    install_release(archive(tmp_path / "r.tar.gz"), folder, JOB)
    return folder
