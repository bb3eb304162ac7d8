"""Samples the machine, and serves ``/metrics`` and ``/healthz`` when it is asked to.

A sample never takes long and never fails: what cannot be read is null.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from miglet.config.settings import Settings
from miglet.messages.events import Identity
from miglet.messages.facts import FaultNoted, MachineSampled
from miglet.messages.orders import ShowStatus
from miglet.metrics import Machine, Sampler
from miglet.metrics.http import Endpoint, parse_listen
from miglet.workers.base import PULSE_SECONDS, Worker

#: The pages are healthy while what they show is not older than so many intervals.
FRESH_INTERVALS = 3


class MetricsSampler(Worker):
    """Looks at the machine in a fixed rhythm, and shows what it saw."""

    name = "metrics-sampler"
    facts = frozenset({FaultNoted, MachineSampled})

    def __init__(self, settings: Settings, identity: Identity) -> None:
        super().__init__(settings, identity)
        self._endpoint: Endpoint | None = None
        #: `miglet.metrics.pages.Pages`, which only a sampler that listens imports.
        self._pages: Any = None

    def open(self) -> None:
        """The first look; what is measured between two looks starts here."""
        directory = Path(self.settings.runner.directory)
        self._sampler = Sampler(self.settings.metrics, Machine(disk=directory))
        self._keep_rhythm()
        if self.settings.metrics.listen:
            self._open_endpoint(self.settings.metrics.listen)

    def changed(self, before: Settings) -> None:
        """Another rhythm, or other things to look at."""
        self._sampler.settings = self.settings.metrics
        self._keep_rhythm()

    def close(self) -> None:
        """Nobody is answered any more."""
        if self._endpoint:
            self._endpoint.close()

    def work(self) -> None:
        """One sample."""
        sample = self._sampler.sample()
        self.report(MachineSampled(sample))
        if self._pages:
            self._pages.sampled(sample)

    def show(self, order: ShowStatus) -> None:
        """What the agent itself looks like."""
        if self._pages:
            self._pages.told(order.snapshot)

    orders = {ShowStatus: show}

    def tick(self) -> None:
        """Send clients away whose time is over."""
        if self._endpoint:
            self._endpoint.expire(time.monotonic())

    def _keep_rhythm(self) -> None:
        self.period = self.settings.metrics.collection_interval
        if self._pages:
            self._pages.fresh_seconds = self._fresh_seconds()

    def _fresh_seconds(self) -> float:
        return FRESH_INTERVALS * max(self.period, PULSE_SECONDS)

    def _open_endpoint(self, address: str) -> None:
        """Without the endpoint the sampler is worth no less: report it, and go on."""
        pages = importlib.import_module("miglet.metrics.pages")
        self._pages = pages.Pages(self._fresh_seconds())
        try:
            endpoint = Endpoint(*parse_listen(address), self._pages.routes())
        except OSError as error:
            told = f"cannot listen on {address}: {error}"
            hint = "choose another metrics.listen"
            self.report(
                FaultNoted("misconfig", "metrics_listen", told, "metrics", hint)
            )
            return
        self._endpoint = endpoint
        self.listen(endpoint, endpoint.serve)
