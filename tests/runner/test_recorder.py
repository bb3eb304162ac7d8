"""What remains of a unit whose shim was killed: the recorder's file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miglet.runner import recorder, shim
from miglet.runner.records import SHIM_LOST, read_record, unknown_exit
from tests.runner.groups import group


@pytest.fixture
def ended(tmp_path, monkeypatch) -> Path:
    """The folder of a run whose unit has ended, as the recorder is started for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVOCATION_ID", "f00")
    monkeypatch.setenv("SERVICE_RESULT", "oom-kill")
    monkeypatch.setenv("EXIT_CODE", "killed")
    monkeypatch.setenv("EXIT_STATUS", "KILL")
    folder = tmp_path / "current"
    folder.mkdir()
    shim.record(str(folder), "run.json", {"unit": {"invocation_id": "f00"}})
    return folder


def recorded(folder: Path) -> dict | None:
    """What the recorder leaves in the folder."""
    mask = os.umask(0o022)
    try:
        recorder.main(str(folder))
    finally:
        os.umask(mask)
    return read_record(folder / "stop.json")


def test_the_recorder_tells_how_a_unit_ended_whose_shim_was_killed(ended):
    record = recorded(ended)
    assert record and (record["result"], record["status"]) == ("oom-kill", "KILL")
    assert (ended / "stop.json").stat().st_mode & 0o777 == 0o600
    status = unknown_exit(ended)
    assert not status.known and status.reason == f"{SHIM_LOST} (systemd: oom-kill)"
    assert status.ended_at == record["ended_at"]


@pytest.mark.parametrize("unit", [{"invocation_id": "ba5"}, None, {}])
def test_the_recorder_leaves_the_folder_of_another_run_alone(ended, unit):
    shim.record(str(ended), "run.json", {"unit": unit})
    assert recorded(ended) is None


def test_the_recorder_of_a_run_that_was_forgotten_writes_nothing(ended):
    (ended / "run.json").unlink()
    assert recorded(ended) is None
    ended.rmdir()
    with pytest.raises(SystemExit):
        recorder.main(str(ended))
    assert not ended.exists()


def test_the_figures_of_the_group_are_recorded(tmp_path):
    folder = group(
        tmp_path / "group",
        cpu__stat="usage_usec 1500000\n",
        io__stat="8:0 rbytes=7 wbytes=11\n",
        memory__events="oom_kill 1\n",
    )
    record = recorder.stop_record({}, folder)
    assert record["cpu_seconds"] == 1.5 and record["oom_kills"] == 1
    assert (record["io_read_bytes"], record["io_write_bytes"]) == (7, 11)
    assert "oom_kills" not in recorder.stop_record({}, None)
