"""A reference controller for the tests of a module, and machines that call it."""

from __future__ import annotations

import uuid

import pytest

from tests.reference_process import running_controller


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    with running_controller(tmp_path_factory.mktemp("controller")) as running:
        yield running


@pytest.fixture
def vm() -> str:
    """A machine that no other test knows."""
    return f"vm-{uuid.uuid4()}"
