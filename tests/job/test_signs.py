"""Signs: what is taken of a job's identity, and never a control character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.job.listener_output import (
    parse_line,
)
from miglet.job.signs import identity_of
from miglet.job.tail import (
    readable,
)
from miglet.messages.events import JobIdentity

SEEN = 1_800_000_000.0
TS = "2026-01-02 03:04:05Z"


def test_a_number_that_no_message_can_carry_is_not_said():
    said = {"run_attempt": "9" * 20, "run_id": "9223372036854775808", "job_id": "12"}
    assert identity_of(said) == JobIdentity(job_id="12")


def test_a_very_long_name_is_cut_between_characters():
    sign = parse_line(f"{TS}: Running job: {'é' * 3000}", SEEN)
    assert sign.name == "é" * 256


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07x", "x"),
        (b"a\x00b\x08c\x7f\xc2\x9b", "abc"),
        (b"\xff\xe2\x88", "\ufffd\ufffd"),
        ("a\u202eb\u2028c".encode(), "abc"),
        ("√ Removed".encode(), "√ Removed"),
    ],
)
def test_what_steers_a_terminal_is_dropped(raw, text):
    assert readable(raw) == text


@given(st.binary(max_size=300))
def test_readable_never_fails_and_leaves_no_control_character(raw):
    text = readable(raw)
    assert not any(ord(c) < 32 and c != "\t" or ord(c) == 127 for c in text)
    parse_line(text, SEEN)


# What is read of one file at most.


# The tail of a growing, rotating file.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (555000111.0, "555000111"),
        (555000111, "555000111"),
        ("555000111", "555000111"),
        (1.5, None),
        (float("inf"), None),
        (float("nan"), None),
        (True, None),
        (-1, None),
        pytest.param(10**5000, None, id="huge"),
        ("12; rm", None),
        ("١٢", None),
        (["1"], None),
        (None, None),
    ],
)
def test_only_a_number_is_a_number(value, text):
    assert identity_of({"job_id": value}).job_id == text
