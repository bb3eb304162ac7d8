"""Delays between attempts, and what a Retry-After header is worth."""

from __future__ import annotations

import itertools
import time
from email.utils import formatdate

import backoff
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.errors import ControllerUnreachable, Unauthenticated
from miglet.http.retry import Backoff, retry_after, steps

DATE = "Thu, 15 Jan 2026 10:30:00 GMT"


def test_the_bounds_double_up_to_the_maximum():
    assert list(itertools.islice(steps(1.0, 30.0), 7)) == [1, 2, 4, 8, 16, 30, 30]


def without_a_first_none(base=2, factor=1, max_value=None):
    """backoff 1's generator, which yields at once."""
    for exponent in itertools.count():
        yield min(factor * base**exponent, max_value)


def test_backoff_1_gives_the_same(monkeypatch):
    monkeypatch.setattr(backoff, "expo", without_a_first_none)
    assert list(itertools.islice(steps(1.0, 30.0), 7)) == [1, 2, 4, 8, 16, 30, 30]


def test_a_thousand_failures_from_nothing_are_no_overflow():
    growing = Backoff(0.0, 30.0)
    for _ in range(5000):
        assert 0.0 <= growing.delay() <= 30.0


def test_delays_are_spread_over_the_whole_range():
    delays = []
    for _ in range(400):
        growing = Backoff(1.0, 30.0)
        growing.delay()
        growing.delay()
        delays.append(growing.delay())
    assert min(delays) < 1.0 < 3.0 < max(delays) <= 4.0


@given(st.floats(0.05, 10), st.floats(0.05, 300), st.integers(1, 40))
def test_no_delay_is_longer_than_its_bound(initial, maximum, failures):
    growing = Backoff(initial, maximum)
    for failure in range(failures):
        assert 0 <= growing.delay() <= min(maximum, initial * 2**failure)


@pytest.mark.parametrize(("asked", "kept"), [(7.0, 7.0), (0.1, 1.0), (1e9, 300.0)])
def test_what_was_asked_for_is_kept_to(asked, kept):
    growing = Backoff(1.0, 30.0)
    delays = [growing.delay(ControllerUnreachable("busy", asked)) for _ in range(200)]
    assert kept <= min(delays)
    assert kept * 1.1 < max(delays) <= kept * 1.2


@pytest.mark.parametrize("error", [ControllerUnreachable("x"), Unauthenticated("x")])
def test_an_error_that_asks_for_nothing_waits_as_usual(error):
    assert Backoff(0.1, 0.1).delay(error) <= 0.1


def test_failures_are_counted_until_a_success():
    growing = Backoff(1.0, 30.0)
    for _ in range(5):
        growing.delay()
    assert growing.failures == 5
    growing.reset()
    assert growing.failures == 0
    assert growing.delay() <= 1.0


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("7", None, 7.0),
        (" 12 ", None, 12.0),
        ("1.5", None, 1.5),
        ("0", None, 1.0),
        ("-5", None, 1.0),
        ("1000000000", None, 300.0),
        ("1e9", None, 300.0),
        ("Thu, 15 Jan 2026 10:30:20 GMT", DATE, 20.0),
        ("Thu, 15 Jan 2026 10:29:00 GMT", DATE, 1.0),
        ("Thu, 15 Jan 2027 10:29:00 GMT", DATE, 300.0),
        ("Thursday, 15-Jan-26 10:30:20 GMT", DATE, 20.0),
        ("Thu Jan 15 10:30:20 2026", DATE, 20.0),
    ],
)
def test_retry_after_is_understood_and_bounded(value, date, seconds):
    assert retry_after(value, date) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [None, "", "soon", "nan", "inf", "-inf", "1e999", "0x10", "7s", "7, 8", "\u0667"]
    + ["9" * 5000, "Thu, 99 Jan 2026 10:30:20 GMT", "1_0", "\x00", ",", "15 Jan"],
)
def test_garbage_asks_for_nothing(value):
    assert retry_after(value, DATE) is None


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_without_a_date_our_own_clock_is_compared(date):
    assert 15 < retry_after(formatdate(time.time() + 20, usegmt=True), date) <= 20


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, .{0,40}"), st.none() | st.text())
def test_no_header_is_a_crash(value, date):
    seconds = retry_after(value, date)
    assert seconds is None or 1 <= seconds <= 300
