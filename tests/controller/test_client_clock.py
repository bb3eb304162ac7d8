"""The offset of the controller's clock, from dates without fractions."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.controller.client import ClockOffset
from miglet.messages.codec import decode, encode
from miglet.messages.facts import ControllerAnswered

NOON = 1_768_478_400.0


def date(at):
    return formatdate(math.floor(at), usegmt=True)


def seen(clock, offset, sent_at, seconds=0.02):
    """One request of `seconds`, answered in its middle by a clock `offset` off."""
    clock.note(date(sent_at + seconds / 2 + offset), sent_at, sent_at + seconds)


def test_nothing_is_known_before_the_first_date():
    clock = ClockOffset()
    for nonsense in (None, "", "soon", "Thu, 99 Jan 2026 10:30:20 GMT"):
        clock.note(nonsense, NOON, NOON + 1)
    assert clock.seconds is None


@pytest.mark.parametrize("offset", [-3600.0, -0.4, 0.0, 0.7, 86_400.3])
def test_one_answer_is_good_to_half_a_second(offset):
    clock = ClockOffset()
    seen(clock, offset, NOON + 0.37)
    assert clock.seconds == pytest.approx(offset, abs=0.52)


@given(st.floats(-1e5, 1e5), st.lists(st.floats(0.01, 3), min_size=1, max_size=60))
def test_more_answers_never_contradict_the_truth(offset, gaps):
    clock, at = ClockOffset(), NOON
    for gap in gaps:
        at += gap
        seen(clock, offset, at)
    assert clock.seconds == pytest.approx(offset, abs=0.53)


def test_many_answers_narrow_it_down():
    clock = ClockOffset()
    for beat in range(60):
        seen(clock, 2.5, NOON + beat * 15.137)
    assert clock.seconds == pytest.approx(2.5, abs=0.1)


def test_a_long_poll_does_not_spoil_what_is_known():
    clock = ClockOffset()
    for beat in range(60):
        seen(clock, 2.5, NOON + beat * 0.137)
    clock.note(date(NOON + 60 + 24.9 + 2.5), NOON + 60, NOON + 85)
    assert clock.seconds == pytest.approx(2.5, abs=0.2)


def test_a_clock_that_was_set_is_followed_at_once():
    clock = ClockOffset()
    for beat in range(20):
        seen(clock, 0.0, NOON + beat * 0.137)
    seen(clock, -7200.0, NOON + 60)
    assert clock.seconds == pytest.approx(-7200, abs=0.52)


def test_a_clock_that_was_set_back_during_a_request_says_nothing():
    clock = ClockOffset()
    clock.note(date(NOON), NOON, NOON - 5)
    assert clock.seconds is None


def test_drifting_clocks_are_followed():
    clock = ClockOffset()
    for beat in range(2000):
        seen(clock, beat * 15 * 5e-5, NOON + beat * 15.137)
    assert clock.seconds == pytest.approx(1.5, abs=0.3)


@pytest.mark.parametrize("year", ["9999", "0100"])
def test_the_parent_takes_the_offset_of_any_clock(year):
    clock = ClockOffset()
    clock.note(f"Fri, 31 Dec {year} 23:59:59 GMT", NOON, NOON)
    decode(encode(ControllerAnswered("events", clock.seconds)))
