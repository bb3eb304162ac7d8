"""Undelivered events as lines, in a file or on the console."""

from __future__ import annotations

import json
import os

import pytest

from miglet.agent.last_resort import LIMIT_BYTES, PREFIX, lines_of, write_events
from miglet.redaction import remember_secret
from miglet.supervisor import queues


def event(kind: str, sequence: int, **data: str) -> dict:
    return {"id": f"id-{sequence}", "sequence": sequence, "type": kind, "data": data}


def written(target: str, lines: list[bytes]):
    ours, theirs = queues.pair()
    write_events(theirs, target, lines)
    (fact,) = ours.receive()
    ours.close()
    theirs.close()
    return fact


def test_job_results_come_first_and_each_event_is_one_line():
    events = [event("Error", 1), event("JobStarted", 2), event("JobCompleted", 3)]
    lines = [line.decode() for line in lines_of(events)]
    assert all(line.startswith(PREFIX) and line.count("\n") == 1 for line in lines)
    numbers = [json.loads(line[len(PREFIX) :])["sequence"] for line in lines]
    assert numbers == [3, 2, 1]


def test_what_a_line_cannot_hold_is_escaped():
    (line,) = lines_of([event("Error", 1, message="a\nMIGLET-EVENT {}\x1b[2J\u2028")])
    assert line.count(b"\n") == 1 and line.isascii() and b"\x1b" not in line


def test_secrets_are_redacted_once_more():
    remember_secret("hunter2-hunter2-hunter2")
    (line,) = lines_of([event("Error", 1, message="token hunter2-hunter2-hunter2")])
    assert b"hunter2" not in line


def test_a_result_fits_whatever_else_is_left():
    chatter = [event("Error", n, message="x" * 8000) for n in range(100)]
    lines = lines_of([*chatter, event("JobCompleted", 1000)])
    assert sum(map(len, lines)) <= LIMIT_BYTES
    assert b"JobCompleted" in lines[0]


def test_lines_are_appended_to_a_file(tmp_path):
    tmp_path.chmod(0o700)
    path = tmp_path / "events"
    for _ in range(2):
        assert written(str(path), [b"one\n", b"two\n"]).count == 2
    assert path.read_text() == "one\ntwo\none\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_not_followed(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "target").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert written(str(tmp_path / "link"), [b"x\n"]).reason
    assert (tmp_path / "target").read_text() == ""


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_only_a_regular_file_is_written_to(tmp_path, kind):
    tmp_path.chmod(0o700)
    path = tmp_path / "place"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    fact = written(str(path), [b"x\n"])
    assert fact.count == 0 and str(path) in fact.reason


def test_a_folder_that_others_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    fact = written(str(tmp_path / "events"), [b"x\n"])
    assert "others" in fact.reason
    assert not (tmp_path / "events").exists()
