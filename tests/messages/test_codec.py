"""What facts, orders, events, effects and signs have in common."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field

import pytest

from miglet.messages.codec import Value


@dataclass(frozen=True, repr=False, eq=False)
class Point(Value):
    """Something small."""

    x: int
    told: str = field(default="s3cret", repr=False)


@dataclass(frozen=True, repr=False, eq=False)
class Other(Value):
    """Of another kind with the same contents."""

    x: int
    told: str = "s3cret"


def test_the_same_contents_are_equal_and_of_one_kind_only():
    assert Point(1) == Point(1) and hash(Point(1)) == hash(Point(1))
    assert Point(1) != Point(2) and Point(1) != Point(1, "else")
    assert Point(1) != Other(1) and Point(1) != (1, "s3cret")
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_what_is_not_to_be_shown_is_not_shown():
    assert repr(Point(1)) == "Point(x=1)"


def test_nothing_can_be_changed():
    with pytest.raises(FrozenInstanceError):
        Point(1).x = 2
