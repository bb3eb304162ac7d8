"""How a worker reports a failed call: each to the arbiter, one to the controller."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from miglet.errors import ControllerUnreachable
from miglet.messages.codec import Fact
from miglet.messages.facts import ControllerFailed, FaultNoted
from miglet.workers.failures import report_failure
from tests.sample_settings import sample_settings

DOWN = ControllerUnreachable("POST https://controller.example/x failed: refused")


class Reporter:
    """A worker whose facts are kept."""

    settings: Any = sample_settings({"controller": {"retry": {"max_attempts": 3}}})

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def report(self, fact: Fact) -> None:
        self.facts.append(fact)

    def fail(self, times: int) -> None:
        for number in range(1, times + 1):
            report_failure(self, "heartbeat", DOWN, number, 2.0)


def test_each_failure_is_reported_with_the_call_and_the_delay():
    reporter = Reporter()
    reporter.fail(2)
    failed = ControllerFailed("heartbeat", DOWN.category, str(DOWN), 2.0)
    assert reporter.facts == [failed, failed]


def test_the_controller_hears_once_of_a_call_that_keeps_failing():
    reporter = Reporter()
    reporter.fail(7)
    [noted] = [fact for fact in reporter.facts if isinstance(fact, FaultNoted)]
    assert noted.code == "call_failing"
    assert "heartbeat: 3 attempts" in noted.message
    assert reporter.facts.index(noted) == 3
    assert len(reporter.facts) == 8


def test_the_log_names_the_request_and_the_time_of_the_next(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.INFO):
        Reporter().fail(1)
    assert caplog.messages == [f"{DOWN}; retrying in 2.0 s"]
