"""A test of many cases fails with all that fail, and never for want of cases."""

from __future__ import annotations

import pytest

from tests.cases import check_each, slow_except


def test_every_case_is_checked():
    checked: list[int] = []
    check_each(range(3), checked.append)
    assert checked == [0, 1, 2]


def test_each_case_that_fails_is_named_with_its_reason():
    def is_positive(case):
        assert case > 0, "it is not positive"

    with pytest.raises(pytest.fail.Exception) as caught:
        check_each([1, -1, 0], is_positive)
    said = str(caught.value)
    assert said.startswith("2 of 3 cases fail:\n-1: it is not positive")
    assert "\n0: it is not positive" in said


def test_what_was_to_raise_and_did_not_is_a_failure():
    def raises(case):
        with pytest.raises(ValueError):
            int(case)

    with pytest.raises(pytest.fail.Exception, match="'2': DID NOT RAISE"):
        check_each(["one", "2"], raises)


def test_an_error_names_its_case():
    with pytest.raises(AssertionError, match="in the case 'two'") as caught:
        check_each(["1", "two"], int)
    assert isinstance(caught.value.__cause__, ValueError)


def test_no_cases_are_a_failure():
    with pytest.raises(AssertionError, match="there are no cases"):
        check_each([], print)


def test_all_but_those_that_are_named_are_marked_as_slow():
    named, other = slow_except(["a", "b"], "a")
    assert named == "a"
    assert other.values == ("b",)
    assert [mark.name for mark in other.marks] == ["slow"]


def test_what_is_no_case_cannot_be_one_of_the_few():
    with pytest.raises(AssertionError, match="not all are cases"):
        slow_except(["a", "b"], "a", "c")
