"""Many cases in one test: where a test for each would cost more than what it checks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

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
