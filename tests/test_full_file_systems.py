"""A file system that is full keeps MIGlet from starting now, and not for good."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from miglet.agent.start import lock
from miglet.control.server import Listener
from miglet.errors import MISCONFIGURED, UNAVAILABLE, NoRoom, status_after
from miglet.job import hooks
from tests.paths import ROOT

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@pytest.fixture
def full(tmp_path) -> Path:
    """A file system without a free inode."""
    place = tmp_path / "run"
    place.mkdir()
    options = "mode=0755,size=1m,nr_inodes=16"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(OSError, match="No space"):
            for number in range(100):
                (place / f"file-{number}").touch()
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@needs_mounts
def test_a_full_runtime_folder_is_no_misconfiguration(full):
    with pytest.raises(NoRoom) as caught, lock(full):
        pass
    assert caught.value.exit_status == UNAVAILABLE
    with pytest.raises(NoRoom) as refused:
        Listener(str(full / "control.sock"), None)
    assert refused.value.exit_status == UNAVAILABLE


@needs_mounts
def test_what_the_last_job_has_filled_is_emptied_for_the_next(full):
    for path in full.iterdir():
        path.unlink()
    folder = full / "hooks"
    folder.mkdir()
    with pytest.raises(OSError, match="No space"):
        for number in range(100):
            (folder / f"file-{number}").touch()
    hooks.prepare(folder, None)
    assert list(full.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.ENOMEM])
def test_what_is_used_up_may_be_free_again(code):
    assert status_after(OSError(code, os.strerror(code))) == UNAVAILABLE
    assert status_after(PermissionError(errno.EACCES, "no")) == MISCONFIGURED


def test_the_folder_that_jobs_report_in_is_a_small_file_system_of_its_own():
    unit = (ROOT / "etc" / "run-miglet-job.mount").read_text()
    assert "Where=/run/miglet/job\n" in unit and "size=1m,nr_inodes=64" in unit
    service = (ROOT / "debian" / "miglet.service").read_text()
    for order in ("Wants=", "After="):
        lines = [line for line in service.splitlines() if line.startswith(order)]
        assert any("run-miglet-job.mount" in line for line in lines)
