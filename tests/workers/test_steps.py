"""How a sequence of the runner-watcher says that it gave up."""

from __future__ import annotations

import pytest

from miglet.errors import (
    MISCONFIGURED,
    REFUSED,
    UNAVAILABLE,
    ControllerUnreachable,
    MigletError,
    Misconfigured,
    Refused,
)
from miglet.messages.facts import RegistrationFailed
from miglet.runner.launcher import LaunchFailed
from miglet.workers.steps import GivenUp, failure_of


@pytest.mark.parametrize(
    "error, category, code, status",
    [
        (Misconfigured([]), "misconfig", "runner_unusable", MISCONFIGURED),
        (Refused("no", 403), "permanent", "registration_refused", REFUSED),
        (ControllerUnreachable("x"), "transient", "runner_unusable", UNAVAILABLE),
        (MigletError("x"), "permanent", "runner_unusable", REFUSED),
    ],
)
def test_an_error_is_the_fact_that_the_arbiter_decides_by(
    error, category, code, status
):
    fact = failure_of(error)
    assert (fact.category, fact.code, fact.exit_status) == (category, code, status)
    assert fact.message == str(error)


def test_the_hint_of_an_error_reaches_the_operator():
    error = LaunchFailed("systemd is slow")
    error.hint = "see journalctl -u miglet"
    assert failure_of(error).hint == "see journalctl -u miglet"


def test_giving_up_carries_the_fact_and_reads_as_its_message():
    fact = RegistrationFailed("permanent", "code", "no such group", "hint", REFUSED)
    error = GivenUp(fact)
    assert error.fact is fact and str(error) == "no such group"
