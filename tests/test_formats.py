"""Times, strict JSON and printable words: one reader and one writer each."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.formats import (
    DEEPEST,
    LATEST,
    is_printable_word,
    one_line,
    parse_http_date,
    parse_rfc3339,
    rfc3339,
    strict_json,
)

#: Years 1 to 9999 in Unix seconds, without the edges.
MOMENTS = st.floats(min_value=-6e10, max_value=2.5e11)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1768473000.1239, "2026-01-15T10:30:00.123Z"),
        (1768473000, "2026-01-15T10:30:00.000Z"),
        (253402300799.0, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_time_is_written_in_utc_with_milliseconds(at, text):
    assert rfc3339(at) == text


@given(st.integers(min_value=0, max_value=253402300799999))
def test_what_was_written_is_read_again(milliseconds):
    read = parse_rfc3339(rfc3339(milliseconds / 1000))
    assert abs(read - milliseconds / 1000) <= 0.0011


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-01-15T10:30:00Z", 1768473000.0),
        ("2026-01-15t10:30:00.5z", 1768473000.5),
        ("2026-01-15 10:30:00.1234567+00:00", 1768473000.123456),
        ("2026-01-15T02:30:00.000-08:00", 1768473000.0),
        ("2026-01-15T10:30:00.123456789Z", 1768473000.123456),
        ("0001-01-01T00:00:00Z", -62135596800.0),
    ],
)
def test_every_form_of_rfc_3339_is_read(text, at):
    assert parse_rfc3339(text) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2026-01-15",
        "2026-01-15T10:30:00",
        "2026-13-15T10:30:00Z",
        "2026-02-30T10:30:00Z",
        "2026-01-15T10:30:00Z\n",
        "٢٠٢٦-01-15T10:30:00Z",
        "2026-01-15T10:30:00+99:00",
    ],
)
def test_what_is_no_time_of_rfc_3339_is_none(text):
    assert parse_rfc3339(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_every_form_of_an_http_date_is_read(text):
    assert parse_http_date(text) == 784111777.0


@given(st.integers(min_value=0, max_value=250_000_000_000))
def test_http_dates_are_read_as_the_standard_library_writes_them(seconds):
    assert parse_http_date(formatdate(seconds, usegmt=True)) == seconds
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    assert parse_http_date(format_datetime(moment, usegmt=True)) == seconds


@given(st.text(max_size=60))
def test_any_other_text_is_no_time(text):
    assert parse_http_date(text) is None or "GMT" in text or ":" in text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "tomorrow",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "2026-01-15T10:30:00Z",
    ],
)
def test_what_is_no_http_date_is_none(text):
    assert parse_http_date(text) is None


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, -2.5, "x", true, null]}', {"a": [1, -2.5, "x", True, None]}),
        (b" null ", None),
        (b"9223372036854775807", 2**63 - 1),
        ('"\\u00e9é"'.encode(), "éé"),
    ],
)
def test_json_is_read(body, value):
    assert strict_json(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b'{"a": 1, "a": 2}',
        b"1" * 41,
        b"0." + b"1" * 50,
        b"[" * 200_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_not_strict_json_is_a_value_error(body):
    with pytest.raises(ValueError):
        strict_json(body)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(body):
    try:
        value = strict_json(body)
    except ValueError:
        return
    assert not (isinstance(value, float) and not math.isfinite(value))


@pytest.mark.parametrize(
    ("text", "usable"),
    [("AB~!9", True), ("", False), ("a b", False), ("ü", False), ("a\n", False)],
)
def test_a_printable_word_is_one_word_of_ascii(text, usable):
    assert is_printable_word(text) is usable


@given(st.text())
def test_one_line_is_one_printable_line(text):
    line = one_line(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    line.encode()


def test_what_is_printable_stays_as_it_is():
    assert one_line("Größe 名前 \\n") == "Größe 名前 \\n"
    assert one_line("a\nb\x1b[31m") == "a\\nb\\x1b[31m"


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59.9999999Z",
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T12:00:00-12:00",
    ],
)
def test_a_time_after_the_last_one_that_can_be_written_is_that(text):
    assert parse_rfc3339(text) == LATEST
    assert rfc3339(LATEST) == "9999-12-31T23:59:59.999Z"


def test_an_http_date_after_the_last_time_is_that_time():
    assert parse_http_date("Fri, 31 Dec 9999 23:59:60 GMT") == LATEST


@pytest.mark.parametrize("body", [b'"\\ud800"', b'{"\\udfff": 1}', b'[["\\ud800x"]]'])
def test_half_of_a_surrogate_pair_is_refused(body):
    with pytest.raises(ValueError, match="surrogate"):
        strict_json(body)


def test_json_has_a_deepest_level():
    strict_json(b"[" * DEEPEST + b"]" * DEEPEST)
    for levels in (DEEPEST + 2, 500, 100_000):
        with pytest.raises(ValueError, match="nested deeper"):
            strict_json(b"[" * levels + b"]" * levels)
