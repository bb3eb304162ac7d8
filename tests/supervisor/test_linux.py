"""Processes that are slow to end, or do not end at all."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from miglet.supervisor import linux
from miglet.supervisor.linux import finish


def shell(script: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(["sh", "-c", script], stdin=pipe, stderr=pipe)


def test_a_process_gets_its_input_and_its_complaint_is_returned():
    process = shell("cat >&2; exit 3")
    assert finish(process, b"what was given", 10) == b"what was given"
    assert process.returncode == 3


def test_a_process_that_ends_early_may_leave_its_input():
    process = shell("exit 0")
    assert finish(process, b"x" * (1 << 20), 10) == b""


def test_a_process_that_takes_too_long_is_killed():
    process = shell("exec sleep 60")
    with pytest.raises(subprocess.TimeoutExpired):
        finish(process, b"", 0.05)
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_cannot_be_killed_is_not_waited_for(monkeypatch):
    process = shell("exec sleep 60")
    monkeypatch.setattr(process, "kill", lambda: None)
    monkeypatch.setattr(linux, "KILL_SECONDS", 0.05)
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        finish(process, b"", 0.05)
    assert process.poll() is None and time.monotonic() - began < 30
    process.send_signal(signal.SIGKILL)
    process.wait()
