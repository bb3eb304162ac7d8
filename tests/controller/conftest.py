"""Fixtures of these tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import responses

from miglet.controller.client import Client
from miglet.redaction import forget_secrets
from tests.controller.calls import BASE, SECRET


@pytest.fixture(autouse=True)
def no_secrets():
    yield
    forget_secrets()


@pytest.fixture
def controller():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def settings(tmp_path):
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    auth = SimpleNamespace(
        type="bearer",
        token_path=str(token),
        certificate_path=None,
        key_path=None,
        ca_path=None,
    )
    return SimpleNamespace(endpoint=BASE, auth=auth, timeout=5.0, proxy=None)


@pytest.fixture
def client(settings):
    client = Client(settings, "vm-1")
    yield client
    client.close()
