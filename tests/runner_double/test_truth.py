"""The record of what really happened, read while it is written."""

from __future__ import annotations

from tests.runner_double import truth


def test_records_come_in_their_order_and_by_their_name(tmp_path):
    (tmp_path / "double").mkdir()
    for number, what in enumerate(["job", "result", "job"]):
        truth.record(tmp_path, what, number=number)
    assert [each["number"] for each in truth.records(tmp_path)] == [0, 1, 2]
    assert [each["number"] for each in truth.records(tmp_path, "job")] == [0, 2]


def test_a_record_of_which_only_a_part_is_written_is_not_there_yet(tmp_path):
    (tmp_path / "double").mkdir()
    truth.record(tmp_path, "job")
    path = tmp_path / "double" / "truth.jsonl"
    path.write_bytes(path.read_bytes() + b'{"a')
    assert [each["what"] for each in truth.records(tmp_path)] == ["job"]
    path.write_bytes(b'{"a')
    assert truth.records(tmp_path) == []
