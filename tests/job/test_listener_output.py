"""What the Listener prints, however it arrives."""

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.job import signs
from miglet.job.listener_output import (
    BUDGET_BYTES,
    LAST_LINES_BYTES,
    Tail,
    clip_lines,
    parse_line,
)
from miglet.job.signs import RESULTS
from miglet.job.tail import (
    FILE_BUDGET_BYTES,
    Budget,
    Lines,
    readable,
)
from miglet.redaction import forget_secrets, remember_secret
from tests.job.lines import AT, write
from tests.job.test_signs import SEEN, TS


def says(text):
    sign = parse_line(text, SEEN)
    return None if sign is None else type(sign).__name__


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"{TS}: Listening for Jobs", "Listening"),
        (f"{TS}: Running job: build", "JobRunning"),
        (f"{TS}: Job build completed with result: Failed", "JobResult"),
        (
            f"{TS}: Runner connect error: x. Retrying until reconnected.",
            "ConnectError",
        ),
        (f"{TS}: Runner reconnected.", "Reconnected"),
        ("Current runner version: '2.336.0'", "RunnerVersion"),
        ("A session for this runner already exists.", "SessionConflict"),
        (
            "An error occurred: Runner version v2.300.0 is deprecated and cannot "
            "receive messages.",
            "VersionDeprecated",
        ),
        (
            "An error occured: Error: Forbidden Runner version v2.300.0 is deprecated "
            "and cannot receive messages.",
            "VersionDeprecated",
        ),
        (
            "An error occurred: Not configured. Run config.(sh/cmd) to configure the "
            "runner.",
            "NotConfigured",
        ),
        ("An error occurred: Get next message failed", "RunnerFailed"),
        ("Failed to create session. Error: Conflict", "RunnerFailed"),
        (
            "Failed to create a session. The runner registration has been deleted from "
            "the server, please re-configure.",
            "RegistrationGone",
        ),
        (
            "The runner no longer exists on the server. Cleaning up local files.",
            "RegistrationGone",
        ),
        ("√ Removed .runner", "RegistrationRemoved"),
        ("Exiting...", None),
        ("Runner update in progress, do not shutdown runner.", "Updating"),
        ("√ Connected to GitHub", None),
        ("", None),
        ("Listening for Jobs", None),
        (f" {TS}: Listening for Jobs", None),
        (f"{TS}: Listening for Jobs!", None),
        ("9999-99-99 99:99:99Z: nothing", None),
        ("second line of a name completed with result: Succeeded", "JobResult"),
        (f"{TS}: Job x completed with result: Excellent", None),
        (f"{TS}: Job x completed with result: Succeeded and more", None),
    ],
)
def test_a_line_says_what_the_runner_means_by_it(line, kind):
    assert says(line) == kind


@pytest.mark.parametrize("result", RESULTS)
def test_every_result_is_known(result):
    line = f"{TS}: Job a completed with result: {result}"
    assert parse_line(line, SEEN) == signs.JobResult(AT, "output", result)


@pytest.mark.parametrize(
    "name",
    [
        "x completed with result: Succeeded",
        "Job y completed with result: Succeeded",
        f"{TS}: Job z completed with result: Succeeded",
        "build: (a, b): c",
        "ünïcode 🚀",
        " completed with result: Canceled ",
    ],
)
def test_a_hostile_job_name_does_not_change_its_result(name):
    ended = parse_line(f"{TS}: Job {name} completed with result: Failed", SEEN)
    assert ended == signs.JobResult(AT, "output", "Failed")


def test_the_last_line_of_a_name_of_several_lines_has_the_result():
    name = f"a\nb\n{TS}: Job x completed with result: Succeeded"
    printed = f"{TS}: Job {name} completed with result: Failed"
    assert parse_line(printed.splitlines()[-1], SEEN).result == "Failed"


def test_a_line_without_a_time_is_dated_by_who_saw_it():
    conflict = "A session for this runner already exists."
    assert parse_line(conflict, SEEN) == signs.SessionConflict(SEEN, "output")


def test_the_result_of_a_job_with_a_name_of_ten_kilobytes_is_seen():
    lines = Lines()
    name = "x" * 10_000
    printed = f"{TS}: Job {name} completed with result: Failed\n"
    (raw,) = lines.feed(printed.encode())
    assert parse_line(readable(raw), SEEN).result == "Failed"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def tail(output):
    made = Tail(output, Budget(FILE_BUDGET_BYTES))
    yield made
    made.close()


def names(found):
    return [sign.name for sign in found if isinstance(sign, signs.JobRunning)]


def running(name):
    return f"{TS}: Running job: {name}\n"


def test_a_file_that_does_not_exist_yet_is_waited_for(tail, output):
    assert tail.read(SEEN) == []
    write(output, running("a"))
    assert names(tail.read(SEEN)) == ["a"]
    assert tail.read(SEEN) == []


def test_a_torn_line_is_understood_when_it_is_whole(tail, output):
    write(output, running("a")[:20])
    assert tail.read(SEEN) == []
    write(output, running("a")[20:])
    assert names(tail.read(SEEN)) == ["a"]


def test_crlf_is_a_line_end(tail, output):
    write(output, f"{TS}: Listening for Jobs\r\n")
    assert [type(sign) for sign in tail.read(SEEN)] == [signs.Listening]


def test_listening_carries_the_version_reported_before(tail, output):
    write(output, f"Current runner version: '2.336.0'\n{TS}: Listening for Jobs\n")
    assert tail.read(SEEN)[-1] == signs.Listening(AT, "output", "2.336.0")


def test_the_last_line_without_an_end_counts_when_nobody_writes_any_more(tail, output):
    write(output, f"{TS}: Job a completed with result: Succeeded")
    assert tail.read(SEEN) == []
    assert tail.finish(SEEN) == [signs.JobResult(AT, "output", "Succeeded")]


def test_nothing_is_lost_in_a_rotation_not_even_half_a_line(tail, output):
    older = output.with_name("output.1")
    write(output, running("a"))
    assert names(tail.read(SEEN)) == ["a"]
    write(output, running("b") + running("c")[:30])
    os.replace(output, older)
    write(output, running("c")[30:] + running("d"))
    assert names(tail.read(SEEN)) == ["b", "c", "d"]


def test_two_rotations_between_two_reads_lose_nothing(tail, output):
    older = output.with_name("output.1")
    write(output, running("a"))
    assert names(tail.read(SEEN)) == ["a"]
    for name in "bcd":
        write(output, running(name))
        if name != "d":
            os.replace(output, older)
    assert names(tail.read(SEEN)) == ["b", "c", "d"]


def test_a_rotation_without_a_new_file_yet_is_no_end(tail, output):
    write(output, running("a"))
    tail.read(SEEN)
    write(output, running("b"))
    os.replace(output, output.with_name("output.1"))
    assert names(tail.read(SEEN)) == ["b"]
    write(output, running("c"))
    assert names(tail.read(SEEN)) == ["c"]


def test_a_writer_that_rotates_while_we_read_loses_us_nothing(tail, output, quick):
    """The writer is at most one rotation ahead, as the shim's 4 MiB make it."""
    rounds, found = 150 if quick else 1500, []
    read = threading.Semaphore(1)

    def rotate():
        for number in range(rounds):
            write(output, running(2 * number))
            read.acquire(timeout=10)
            write(output, running(2 * number + 1))
            os.replace(output, output.with_name("output.1"))

    writer = threading.Thread(target=rotate)
    writer.start()
    writing = True
    while writing:
        writing = writer.is_alive()
        fresh = names(tail.read(SEEN))
        found += fresh
        for _ in filter(lambda name: int(name) % 2, fresh):
            read.release()
    writer.join()
    assert found == [str(number) for number in range(2 * rounds)]


class Meddled(type(Path())):
    """A path that runs `meddle` once, at the moment when somebody opens it."""

    meddle = None

    def __fspath__(self):
        meddle, type(self).meddle = type(self).meddle, None
        if meddle:
            meddle()
        return super().__fspath__()


def test_what_is_written_between_the_last_read_and_the_rotation_is_not_lost(output):
    def write_and_rotate():
        write(output, running("b"))
        os.replace(output, output.with_name("output.1"))
        write(output, running("c"))

    write(output, running("a"))
    tail = Tail(Meddled(output), Budget(FILE_BUDGET_BYTES))
    assert names(tail.read(SEEN)) == ["a"]
    Meddled.meddle = staticmethod(write_and_rotate)
    found = tail.read(SEEN) + tail.read(SEEN)
    assert Meddled.meddle is None
    assert names(found) == ["b", "c"]
    tail.close()


def test_a_new_reader_begins_with_the_older_file(output):
    write(output.with_name("output.1"), running("a"))
    write(output, running("b"))
    tail = Tail(output, Budget(FILE_BUDGET_BYTES))
    assert names(tail.read(SEEN)) == ["a", "b"]
    tail.close()


def test_a_flood_is_read_in_bounded_pieces_and_the_sign_behind_it_is_found(
    tail, output
):
    write(
        output, b"\xff\x00y" * (BUDGET_BYTES // 3 * 3) + b"\n" + running("a").encode()
    )
    calls, found = 1, tail.read(SEEN)
    assert tail.behind
    while tail.behind:
        found += tail.read(SEEN)
        calls += 1
    assert names(found) == ["a"]
    assert 3 <= calls <= 5


def test_last_lines_are_the_newest_and_without_secrets(tail, output):
    remember_secret("hunter2-hunter2")
    write(output, "one\n\ntwo hunter2-hunter2\nthree\n")
    tail.read(SEEN)
    assert tail.last_lines(2) == ["two ***", "three"]
    forget_secrets()


@pytest.mark.parametrize("character", ["x", "é", "\\", "🚀"])
def test_twenty_lines_of_eight_kilobytes_fit_in_a_message(tail, output, character):
    for number in range(20):
        write(output, f"{number} {character * 8000}\n")
    tail.read(SEEN)
    while tail.behind:
        tail.read(SEEN)
    lines = tail.last_lines(20)
    assert len(json.dumps(lines)) <= LAST_LINES_BYTES + 2
    assert lines[-1].startswith("19 ")
    assert lines[-1].endswith("...")


@given(st.lists(st.text(max_size=300), max_size=30), st.integers(20, 400))
def test_clipped_lines_are_the_last_ones_and_fit(lines, limit):
    clipped = clip_lines(lines, limit, 2000)
    assert len(json.dumps(clipped)) <= 2002
    assert all(len(json.dumps(line)) <= limit for line in clipped)
    for line, original in zip(clipped[::-1], lines[::-1], strict=False):
        assert original.startswith(line.removesuffix("..."))


def test_behind_a_spent_budget_the_end_is_read_at_the_end(output):
    tail = Tail(output, Budget(1 << 20))
    write(output, b"y" * 200_000 + b"\n" + running("a").encode())
    write(output, b"z\n" * (3 << 20))
    write(output, f"{TS}: Job a completed with result: Failed\n")
    found = tail.read(SEEN)
    while tail.behind:
        found += tail.read(SEEN)
    assert names(found) == ["a"]
    assert tail.finish(SEEN) == [signs.JobResult(AT, "output", "Failed")]
    tail.close()


def test_no_output_has_no_last_lines(tail):
    assert tail.last_lines(5) == []


def test_a_fifo_in_place_of_the_output_blocks_nobody(tail, output):
    os.mkfifo(output)
    assert tail.read(SEEN) == []
