"""What facts, orders, events, effects and signs have in common."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, field, replace

import pytest

from miglet.messages.codec import Depth, Value, Word, frozen_value, named_value


@frozen_value
class Point(Value):
    """Something small."""

    x: int
    secret: str = field(default="s3cret", repr=False)


@frozen_value
class Other(Value):
    """Of another kind with the same contents."""

    x: int
    secret: str = "s3cret"


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

    with pytest.raises(FrozenInstanceError):
        del Point(1).x


def test_fields_are_given_in_order_or_by_name_and_default_factories_run_each_time():
    @frozen_value
    class Box(Value):
        """With every kind of field."""

        name: str
        count: int = 1
        items: list[str] = field(default_factory=list)

    one, other = Box("a"), Box(name="a")
    assert vars(one) == {"name": "a", "count": 1, "items": []} and one == other
    assert one.items is not other.items
    named = Box(items=["x"], count=2, name="b")
    assert tuple(vars(named)) == ("name", "count", "items")
    assert hash(Point(secret="y", x=3)) == hash(Point(3, "y"))
    assert replace(named, count=3) == Box("b", 3, ["x"])


def test_a_subclass_of_what_is_given_by_name_may_require_more():
    @named_value
    class Described(Value):
        """All optional."""

        name: str | None = None

    @frozen_value
    class Started(Described):
        """With something that is required."""

        at: float

    assert vars(Started(1.0, name="a")) == {"name": "a", "at": 1.0}
    assert Started(at=1.0) == Started(1.0)
    with pytest.raises(TypeError, match="Started does not take 2 values"):
        Started(1.0, "a")


def test_wrong_arguments_are_refused_by_name():
    for arguments, named, reason in (
        ((), {}, "Point needs a value for x"),
        ((1,), {"x": 2}, "Point does not take x"),
        ((1,), {"z": 2}, "Point does not take z"),
        ((1, "a", "b"), {}, "Point does not take 3 values"),
    ):
        with pytest.raises(TypeError, match=reason):
            Point(*arguments, **named)


@pytest.mark.parametrize(
    ("value", "levels"),
    [("x", 0), (None, 0), (7, 0), ([], 1), ({}, 1), ([["x"], {}], 2), ({"a": [[]]}, 3)],
)
def test_a_depth_counts_lists_and_objects(value, levels):
    assert Depth(levels).holds(value)
    assert levels == 0 or not Depth(levels - 1).holds(value)


@pytest.mark.parametrize("text", ["", "a b", "a\n", "a\0", "ä", "xxxxx"])
def test_a_word_is_printable_ascii_of_a_bounded_length(text):
    assert Word(4).holds("word")
    assert not Word(4).holds(text)
