"""A machine for each test, as in the end-to-end tests; what is slow says so."""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import controller, free_port, machine

__all__ = ["controller", "free_port", "machine"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder injects a fault into real processes."""
    for item in items:
        if "tests/faults/" in item.nodeid:
            item.add_marker(pytest.mark.fault)
            item.add_marker(pytest.mark.fork)
