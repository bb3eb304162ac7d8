"""Lines of growing files, within a budget."""

import os

from hypothesis import given
from hypothesis import strategies as st

from miglet.job.tail import (
    CHUNK_BYTES,
    LINE_END_BYTES,
    Budget,
    Followed,
    Lines,
)
from tests.job.lines import write


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_lines_do_not_depend_on_how_the_bytes_arrive(chunks):
    whole, pieces = Lines(), Lines()
    everything = b"".join(chunks)
    together = [*whole.feed(everything), whole.rest()]
    one_by_one = [line for chunk in chunks for line in pieces.feed(chunk)]
    assert [*one_by_one, pieces.rest()] == together
    assert together == [line.rstrip(b"\r") for line in everything.split(b"\n")]


def test_of_an_overlong_line_both_ends_are_kept():
    lines = Lines(limit=10)
    found = [
        *lines.feed(b"a" * 25),
        *lines.feed(b"m" * 1000),
        *lines.feed(b"b" * LINE_END_BYTES + b"\nnext\n"),
    ]
    assert found == [b"a" * 10 + b"b" * LINE_END_BYTES, b"next"]


@given(st.integers(1, 40), st.integers(0, 400), st.integers(1, 300))
def test_how_an_overlong_line_arrives_makes_no_difference(limit, length, size):
    line = bytes(number % 251 + 1 for number in range(length)).replace(b"\n", b"x")
    whole, pieces = Lines(limit), Lines(limit)
    parts = [line[at : at + size] for at in range(0, length, size)]
    assert not any(list(pieces.feed(part)) for part in parts)
    expected = line[:limit] + line[limit:][-LINE_END_BYTES:]
    assert list(whole.feed(line + b"\n")) == [expected.rstrip(b"\r")]
    assert list(pieces.feed(b"\n")) == [expected.rstrip(b"\r")]


def test_after_a_jump_the_rest_of_a_line_is_not_taken_for_a_line():
    lines = Lines()
    list(lines.feed(b"begun"))
    lines.resynchronize()
    assert list(lines.feed(b"Job a completed with result: Succeeded\nnext\n")) == [
        b"next"
    ]


def followed(path, budget):
    return Followed(os.open(path, os.O_RDONLY), budget)


def test_a_file_is_not_read_beyond_its_budget_and_then_counts_as_read(tmp_path):
    write(tmp_path / "log", b"x" * 1000)
    file = followed(tmp_path / "log", Budget(300))
    assert b"".join(file.chunks(1000)) == b"x" * 300
    assert file.exhausted()
    file.close()


def test_the_files_of_a_run_share_its_budget(tmp_path):
    write(tmp_path / "log", b"x" * 1000)
    whole = Budget(500)
    first = followed(tmp_path / "log", Budget(300, whole))
    second = followed(tmp_path / "log", Budget(300, whole))
    assert len(b"".join(first.chunks(1000))) == 300
    assert len(b"".join(second.chunks(1000))) == 200
    first.close()
    second.close()


def test_a_sparse_file_of_terabytes_costs_no_more_than_the_budget(tmp_path):
    path = tmp_path / "log"
    write(path, b"")
    os.truncate(path, 8 << 40)
    file = followed(path, Budget(1 << 20))
    assert sum(map(len, file.chunks(1 << 60))) == 1 << 20
    assert file.jump_to_end()
    assert sum(map(len, file.chunks(1 << 60))) == CHUNK_BYTES
    assert file.exhausted()
    file.close()
