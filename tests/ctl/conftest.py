"""Fixtures of these tests."""

from __future__ import annotations

import pytest

from tests.ctl.agent import (
    agent,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def calls(path):
    with agent(path) as calls:
        yield calls
