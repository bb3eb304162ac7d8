"""Fixtures of these tests."""

from __future__ import annotations

import pytest

from tests.authority import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")
