"""How a worker reports a failed call: to the log, the arbiter, and the controller."""

from __future__ import annotations

import logging
from typing import Protocol

from miglet.config.settings import Settings
from miglet.errors import ControllerError
from miglet.messages.codec import Fact
from miglet.messages.facts import ControllerFailed, FaultNoted

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """A worker, or what stands for one."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    def report(self, fact: Fact) -> None:
        """Send a fact to the arbiter."""


def report_failure(
    reporter: Reporter, call: str, error: ControllerError, failures: int, delay: float
) -> None:
    """Report that a call failed, `failures` times in a row, and is due in `delay` s.

    After ``controller.retry.max_attempts`` of them the failure is reported to the
    controller, once; retries go on.
    """
    log.info("%s; retrying in %.1f s", error, delay)
    reporter.report(ControllerFailed(call, error.category, str(error), delay))
    if failures == reporter.settings.controller.retry.max_attempts:
        message = f"{call}: {failures} attempts in a row failed: {error}"
        reporter.report(
            FaultNoted(error.category, "call_failing", message, "controller")
        )
