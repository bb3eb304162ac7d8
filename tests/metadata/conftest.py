"""The clouds' fakes, and no secret that outlives its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from miglet.redaction import forget_secrets
from tests.metadata_fakes import FAKES, Fake


@pytest.fixture(autouse=True)
def secrets_are_forgotten() -> Iterator[None]:
    yield
    forget_secrets()


@pytest.fixture(params=sorted(FAKES))
def fake(request) -> Iterator[Fake]:
    with FAKES[request.param]() as made:
        yield made


@pytest.fixture
def gce() -> Iterator[Fake]:
    with FAKES["gce"]() as made:
        yield made
