"""The records of a run: read whatever is in the files, and removed as a whole."""

from __future__ import annotations

import json

import pytest

from miglet.runner import shim
from miglet.runner.records import (
    RECORD_LIMIT_BYTES,
    SHIM_LOST,
    ExitStatus,
    discard,
    exit_status_of,
    read_record,
    recorded_exit,
    tail,
    unknown_exit,
)


def test_a_record_of_the_shim_is_read_as_it_was_written(tmp_path):
    shim.record(str(tmp_path), "exit.json", shim.exit_status(102 << 8))
    status = recorded_exit(tmp_path / "exit.json")
    assert status and status.known
    assert (status.exit_code, status.signal, status.shell_code) == (102, None, 102)


def test_a_signal_is_reported_as_a_shell_reports_it():
    status = exit_status_of(shim.exit_status(9))
    assert status and (status.exit_code, status.signal) == (None, 9)
    assert status.shell_code == 137


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b'{"exit_code": 1}',
        b" " * RECORD_LIMIT_BYTES + b"{}",
    ],
    ids=["empty", "cut", "a list", "no UTF-8", "incomplete", "too large"],
)
def test_what_is_no_record_is_absent(tmp_path, text):
    path = tmp_path / "exit.json"
    path.write_bytes(text)
    assert recorded_exit(path) is None
    assert recorded_exit(tmp_path / "other.json") is None


def test_fields_of_a_later_version_are_left_out():
    record = {"exit_code": 0, "signal": None, "ended_at": 1.0, "later": True}
    assert exit_status_of(record) == ExitStatus(0, None, 1.0)


def test_an_unknown_end_has_what_the_unit_knows(tmp_path):
    assert unknown_exit(tmp_path).reason == SHIM_LOST
    stopped = {"result": "signal", "ended_at": 2.0, "cpu_seconds": 1.5, "oom_kills": 0}
    (tmp_path / "stop.json").write_text(json.dumps(stopped))
    status = unknown_exit(tmp_path)
    assert not status.known and status.shell_code is None
    assert (status.ended_at, status.cpu_seconds) == (2.0, 1.5)
    assert status.reason == f"{SHIM_LOST} (systemd: signal)"


def test_a_folder_is_discarded_even_if_that_was_interrupted_before(tmp_path):
    folder = tmp_path / "current"
    for each in (folder, tmp_path / "current.forgotten"):
        each.mkdir()
        (each / "run.json").write_text("{}")
    discard(folder)
    assert list(tmp_path.iterdir()) == []
    discard(folder)


def test_the_tail_of_a_file_is_bounded(tmp_path):
    path = tmp_path / "output"
    assert tail(path, 3) == b""
    path.write_bytes(b"abcdef")
    assert tail(path, 3) == b"def" and tail(path, 100) == b"abcdef"


def test_a_record_is_an_object(tmp_path):
    (tmp_path / "run.json").write_text('{"a": 1}   \n')
    assert read_record(tmp_path / "run.json") == {"a": 1}
