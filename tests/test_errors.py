"""The tree of errors: categories, exit statuses, and what their text says."""

from __future__ import annotations

import errno

import pytest

from miglet import errors
from miglet.errors import (
    MISCONFIGURED,
    REFUSED,
    UNAVAILABLE,
    BadAnswer,
    BadRegistration,
    ControllerError,
    ControllerUnreachable,
    Fault,
    MigletError,
    Misconfigured,
    status_after,
)

CATEGORIES = {"transient", "infrastructure", "permanent", "misconfig", "user"}
STATUSES = {0, 1, 69, 70, 75, 77, 78}


def every_error() -> list[type[MigletError]]:
    """The classes of this module."""
    found = [MigletError]
    for each in found:
        found += [kind for kind in each.__subclasses__() if kind not in found]
    return [each for each in found if each.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_category_and_an_exit_status_of_the_contract(kind):
    assert kind.category in CATEGORIES
    assert kind.exit_status in STATUSES


@pytest.mark.parametrize(
    "fault, text",
    [
        (
            Fault("org_id", "environment MIGLET_ORG_ID", "is empty", "set it"),
            "org_id (environment MIGLET_ORG_ID): is empty; set it",
        ),
        (
            Fault("", "/etc/miglet/miglet.yaml", "not UTF-8"),
            "/etc/miglet/miglet.yaml: not UTF-8",
        ),
    ],
)
def test_a_fault_names_key_source_reason_and_what_to_do(fault, text):
    assert str(fault) == text


def test_a_misconfiguration_lists_every_fault():
    faults = [Fault("a", "file", "is missing"), Fault("b", "file", "is wrong")]
    error = Misconfigured(faults)
    assert str(error).splitlines() == ["a (file): is missing", "b (file): is wrong"]
    assert error.exit_status == MISCONFIGURED


@pytest.mark.parametrize(
    "number, status",
    [
        (errno.ENOSPC, UNAVAILABLE),
        (errno.EMFILE, UNAVAILABLE),
        (errno.EACCES, MISCONFIGURED),
        (errno.ENOTDIR, MISCONFIGURED),
    ],
)
def test_what_is_used_up_may_be_there_at_the_next_start(number, status):
    assert status_after(OSError(number, "text")) == status


def test_a_failed_request_names_its_target():
    error = ControllerError("connection refused")
    assert str(error) == "connection refused"
    error.target = "POST https://controller.example/api/v1/vms/v/events"
    assert str(error) == f"{error.target} failed: connection refused"


def test_only_an_answer_that_cannot_change_by_itself_is_not_tried_again():
    assert ControllerUnreachable("x").transient and BadAnswer("x").transient
    assert BadRegistration("x").category == "permanent"
    assert BadRegistration("x").exit_status == REFUSED
