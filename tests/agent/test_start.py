"""The runtime folder's lock: one MIGlet at a time, and a full disk is no mistake."""

from __future__ import annotations

import errno
import os

import pytest

from miglet.agent.start import AlreadyRunning, lock
from miglet.errors import UNAVAILABLE, Misconfigured, NoRoom


def test_a_second_miglet_learns_that_there_is_one(tmp_path):
    with lock(tmp_path), pytest.raises(AlreadyRunning), lock(tmp_path):
        pass


def test_the_lock_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with lock(tmp_path / "run"):
            pass


def test_an_error_inside_is_not_taken_for_another_miglet(tmp_path):
    with pytest.raises(BlockingIOError), lock(tmp_path):
        raise BlockingIOError("no more processes")


def test_a_folder_that_cannot_be_used_is_a_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured), lock(tmp_path / "file"):
        pass


def test_a_full_disk_is_no_mistake(tmp_path, monkeypatch):
    def full(*arguments: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(NoRoom) as caught, lock(tmp_path):
        pass
    assert caught.value.exit_status == UNAVAILABLE
