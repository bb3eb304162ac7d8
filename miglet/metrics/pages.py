"""What the sampler's endpoint answers, made from what the sampler was last told.

Health is about MIGlet: a page never turns red because a job runs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from miglet.metrics.http import Answer, Route
from miglet.metrics.prometheus import Exposition

#: The states in which the machine has a runner that listens, or a job.
READY_STATES = frozenset({"idle", "job_running"})


class Pages:
    """The pages by their path; `fresh_seconds` is how old healthy facts may be."""

    def __init__(
        self, fresh_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.fresh_seconds = fresh_seconds
        self._clock = clock
        self._exposition = Exposition()
        self._sampled_now = self._told_now = float("-inf")

    def routes(self) -> dict[str, Route]:
        """For the endpoint: a function for each path."""
        return {
            "/metrics": self.metrics,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
        }

    def sampled(self, sample: Mapping[str, Any]) -> None:
        """Take the machine's latest sample."""
        self._sampled_now = self._clock()
        self._see(machine=sample)

    def told(self, snapshot: Mapping[str, Any]) -> None:
        """Take what the arbiter last said of the agent."""
        self._told_now = self._clock()
        self._see(agent=snapshot)

    def metrics(self, accept: str) -> Answer:
        """All metrics, in the text format or as OpenMetrics."""
        self._see()
        content_type, body = self._exposition.page(accept)
        return Answer(200, body, content_type)

    def healthz(self, accept: str) -> Answer:
        """200 while the sampler samples and hears from the arbiter."""
        stale = self._stale()
        return Answer.of_text(503, stale) if stale else Answer.of_text(200, "ok")

    def readyz(self, accept: str) -> Answer:
        """200 while the machine has a runner that listens, or a job."""
        state = self._exposition.seen.agent.get("state", "unknown")
        stale = self._stale()
        if stale or state not in READY_STATES:
            return Answer.of_text(503, stale or state)
        return Answer.of_text(200, state)

    def _stale(self) -> str:
        for what, now in (
            ("sample of the machine", self._sampled_now),
            ("word from the arbiter", self._told_now),
        ):
            if self._clock() - now > self.fresh_seconds:
                return f"no {what} for {self.fresh_seconds:g} s"
        return ""

    def _see(self, **parts: Mapping[str, Any]) -> None:
        self._exposition.seen = dataclasses.replace(
            self._exposition.seen, now=self._clock(), **parts
        )
