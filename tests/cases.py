"""Many cases of one test, where a test for each would cost more than what it shows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import pytest
from hypothesis import settings

#: Four times the examples of the profile, for properties that are cheap to try.
MANY_EXAMPLES = settings(max_examples=4 * settings.default.max_examples)

Case = TypeVar("Case")


def check_each(cases: Collection[Case], check: Callable[[Case], None]) -> None:
    """Check every case; fails with all those that fail and what was wrong with each."""
    assert cases, "there are no cases"
    failures = []
    for case in cases:
        try:
            check(case)
        except (AssertionError, pytest.fail.Exception) as failure:
            failures.append(f"{case!r}: {failure}")
        except Exception as error:
            raise AssertionError(f"an error in the case {case!r}") from error
    if failures:
        total = f"{len(failures)} of {len(cases)} cases fail:"
        pytest.fail("\n".join([total, *failures]), pytrace=False)


def slow_except(cases: Collection[Case], *now: Case) -> list[Any]:
    """The cases as parameters: `now` in `make test`, all others marked as slow.

    For processes that show how the parts fit together, where tests of the part itself
    have every case.
    """
    assert set(now) <= set(cases), f"not all are cases: {now}"
    return [
        case if case in now else pytest.param(case, marks=pytest.mark.slow)
        for case in cases
    ]
