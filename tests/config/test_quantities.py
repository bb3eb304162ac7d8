"""Durations and sizes: what is written can be read back, what is not is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from miglet.config.schema import (
    duration_text,
    parse_duration,
    parse_size,
    size_text,
)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_survives_being_written(milliseconds):
    seconds = milliseconds / 1000
    assert parse_duration(duration_text(seconds)) == seconds


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_of_microseconds_survives_being_written(microseconds):
    seconds = microseconds / 1_000_000
    assert parse_duration(duration_text(seconds)) == seconds


@given(st.integers(min_value=0, max_value=10**15))
def test_a_size_survives_being_written(size):
    assert parse_size(size_text(size)) == size


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_value_error(text):
    for parser in (parse_duration, parse_size):
        try:
            assert parser(text) >= 0
        except ValueError:
            continue


def test_the_usual_quantities_are_written_as_people_write_them():
    durations = (0, 0.05, 15, 90, 5400)
    assert [*map(duration_text, durations)] == ["0s", "50ms", "15s", "1m30s", "1h30m"]
    sizes = (0, 1023, 100_000, 5 * 10**9, 512 * 1024**2)
    assert [*map(size_text, sizes)] == ["0B", "1023B", "100kB", "5GB", "512MiB"]
