"""The checks of disks: real ones that are full, read-only, out of inodes or missing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from miglet.bootstrap import disk
from tests.preflight_machine import look, settings_of

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextlib.contextmanager
def mounted(place: Path, *how: str) -> Iterator[Path]:
    """Something mounted at `place` for a while; skips where that is not allowed."""
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", *how, str(place)], capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    with mounted(place, "-t", "tmpfs", "-o", options, "tmpfs") as there:
        yield there


def as_nobody(act: Callable[[], bool]) -> bool:
    """Whether `act` is true in a process without any rights."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            status = 0 if act() else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def test_too_little_room_fails_and_says_how_much_there_is(tmp_path):
    row = look("free_disk", settings_of(tmp_path, bootstrap__min_free_disk="900TB"))
    assert (row["status"], row["category"]) == ("fail", "infrastructure")
    assert "900000.0 GB wanted" in row["detail"]
    assert "bootstrap.min_free_disk" in row["hint"]


def test_enough_room_is_fine(tmp_path):
    assert look("free_disk", settings_of(tmp_path))["status"] == "ok"


@AS_ROOT
def test_the_disk_of_the_work_folder_is_the_one_that_counts(tmp_path):
    settings = settings_of(tmp_path, bootstrap__min_free_disk="10MB")
    with small_disk(tmp_path / "runner" / "_work", "size=4m") as work:
        row = look("free_disk", settings)
    assert row["status"] == "fail"
    assert row["detail"] == f"4.2 MB free at {work}, 10.0 MB wanted"


@AS_ROOT
def test_a_full_disk_of_the_journal_is_a_warning(tmp_path):
    settings = settings_of(tmp_path)
    with small_disk(tmp_path / "state", "size=1m") as state:
        with contextlib.suppress(OSError):
            (state / "filler").write_bytes(bytes(2 << 20))
        row = look("free_disk", settings)
    assert row["status"] == "warn"
    assert row["detail"] == f"0.0 MB free at {state}, 32.0 MB wanted"


@AS_ROOT
def test_too_few_inodes_are_a_warning(tmp_path):
    settings = settings_of(tmp_path)
    with small_disk(tmp_path / "runner" / "_work", "size=4m,nr_inodes=20") as work:
        row = look("free_inodes", settings)
    assert row["status"] == "warn"
    assert str(work) in row["detail"]
    assert "inodes" in row["detail"]


@AS_ROOT
def test_a_file_system_without_a_limit_has_enough_inodes(tmp_path):
    settings = settings_of(tmp_path)
    with (
        small_disk(tmp_path / "runner" / "_work", "size=4m,nr_inodes=0"),
    ):
        row = look("free_inodes", settings)
    assert (row["status"], row["detail"]) == ("ok", "without limit")


def test_folders_are_made_later_where_their_parents_allow_it(tmp_path):
    assert look("folders_writable", settings_of(tmp_path))["status"] == "ok"


@AS_ROOT
def test_a_folder_that_we_may_not_write_to_is_a_misconfiguration(tmp_path):
    settings = settings_of(tmp_path, paths__state="/etc/miglet-state")

    def refused() -> bool:
        row = look("folders_writable", settings)
        return row["category"] == "misconfig" and "paths.state" in row["hint"]

    assert as_nobody(refused)


@AS_ROOT
def test_a_folder_that_even_root_may_not_write_to_is_found(tmp_path):
    settings = settings_of(tmp_path)
    with small_disk(tmp_path / "run", "size=4m,ro"):
        row = look("folders_writable", settings)
    assert (row["status"], row["category"]) == ("fail", "misconfig")
    assert row["detail"] == f"{tmp_path / 'run'} is not writable"


def test_a_file_where_a_folder_should_be_is_called_that(tmp_path):
    settings = settings_of(tmp_path)
    (tmp_path / "state").write_text("")
    row = look("folders_writable", settings)
    assert row["detail"] == f"{tmp_path / 'state'} is not a folder"


def test_every_mount_that_is_missing_is_named(tmp_path):
    wanted = f"/dev/shm,{tmp_path},{tmp_path}/nothing"
    row = look("mounts", settings_of(tmp_path, bootstrap__mounts=wanted))
    assert (row["status"], row["category"]) == ("fail", "infrastructure")
    assert row["detail"] == (
        f"{tmp_path} is not a mount point; {tmp_path}/nothing does not exist"
    )


@AS_ROOT
def test_mounts_are_found_by_links_and_with_spaces_and_bound(tmp_path):
    link, bound = tmp_path / "link", tmp_path / "bound"
    with small_disk(tmp_path / "a disk", "size=1m") as there:
        link.symlink_to(there)
        with mounted(bound, "--bind", str(tmp_path / "a disk")):
            wanted = f"{there},{link},{bound}"
            row = look("mounts", settings_of(tmp_path, bootstrap__mounts=wanted))
    assert (row["status"], row["detail"]) == ("ok", wanted.replace(",", ", "))


@AS_ROOT
def test_a_mount_that_nobody_can_write_to_fails(tmp_path):
    with small_disk(tmp_path / "disk", "size=1m,ro") as there:
        row = look("mounts", settings_of(tmp_path, bootstrap__mounts=str(there)))
    assert row["status"] == "fail"
    assert row["detail"] == f"{there} is mounted read-only"


def test_the_kernel_writes_white_space_in_octal():
    assert disk.unescaped(r"/a\040disk\134") == "/a disk\\"
