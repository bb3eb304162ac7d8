"""Started as root, the checks of the network are made by a process that is not."""

from __future__ import annotations

import os

import pytest

import miglet.bootstrap.preflight  # noqa: F401  # registers the checks
from miglet.bootstrap import framework
from miglet.bootstrap.framework import Check, report
from miglet.supervisor import privileges
from tests.sample_settings import sample_settings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")


def who(settings: object, deadline: float) -> str:
    return str(os.geteuid())


def dying(settings: object, deadline: float) -> str:
    os._exit(3)


@pytest.fixture(autouse=True)
def nobody(monkeypatch) -> privileges.Account:
    account = privileges.account("nobody")
    monkeypatch.setattr(privileges, "unprivileged_account", lambda user: account)
    monkeypatch.setattr(framework, "unprivileged_account", lambda user: account)
    return account


def test_only_local_checks_are_made_as_root(nobody):
    checks = {"local": Check(who), "remote": Check(who, 3.0, network=True)}
    rows = {row["id"]: row for row in report(sample_settings(), checks)}
    assert list(rows) == ["local", "remote"]
    assert rows["local"]["detail"] == "0"
    assert rows["remote"]["detail"] == str(nobody.uid)


def test_a_process_that_dies_leaves_warnings_and_no_failure():
    checks = {"local": Check(who), "remote": Check(dying, 3.0, network=True)}
    rows = {row["id"]: row for row in report(sample_settings(), checks)}
    assert rows["local"]["status"] == "ok"
    assert rows["remote"]["status"] == "warn"
