"""The metrics-sampler: samples the machine and serves the metrics pages.

The HTTP server and prometheus_client are imported only where ``metrics.listen`` is set.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from miglet.config.settings import Settings
from miglet.messages.events import Identity
from miglet.messages.facts import FaultNoted, MachineSampled
from miglet.messages.orders import ShowStatus
from miglet.metrics.machine import Machine, Sampler
from miglet.supervisor.privileges import METRICS_USER
from miglet.workers.base import PING_SECONDS, Worker

#: The pages are healthy while what they show is at most so many intervals old.
FRESH_INTERVALS = 3


class MetricsSampler(Worker):
    """Samples the machine at a fixed interval, and shows the samples."""

    name = "metrics-sampler"
    user = METRICS_USER
    facts = frozenset({FaultNoted, MachineSampled})

    def __init__(self, settings: Settings, identity: Identity) -> None:
        super().__init__(settings, identity)
        #: `miglet.metrics.http.MetricsServer` and `miglet.metrics.prometheus.Pages`.
        self._server: Any = None
        self._pages: Any = None

    def open(self) -> None:
        """Take the first values, to which the first sample is compared."""
        directory = Path(self.settings.runner.directory)
        self._sampler = Sampler(Machine(disk=directory), self._left_out())
        self._set_period()
        if self.settings.metrics.listen:
            self._serve_pages(self.settings.metrics.listen)

    def changed(self, before: Settings) -> None:
        """Apply ``metrics.collection_interval`` and the switches."""
        self._sampler.left_out = self._left_out()
        self._set_period()

    def close(self) -> None:
        """Stop serving."""
        if self._server:
            self._server.close()

    def work(self) -> None:
        """Take one sample."""
        sample = self._sampler.sample()
        self.report(MachineSampled(sample))
        if self._pages:
            self._pages.show_sample(sample)

    def show(self, order: ShowStatus) -> None:
        """Show the agent's own state."""
        if self._pages:
            self._pages.show_agent(order.snapshot)

    orders = {ShowStatus: show}

    def _left_out(self) -> frozenset[str]:
        metrics = self.settings.metrics
        switches = {"disk": metrics.include_disk, "network": metrics.include_network}
        return frozenset(group for group, wanted in switches.items() if not wanted)

    def _set_period(self) -> None:
        self.period = self.settings.metrics.collection_interval
        if self._pages:
            self._pages.fresh_seconds = self._fresh_seconds()

    def _fresh_seconds(self) -> float:
        return FRESH_INTERVALS * max(self.period, PING_SECONDS)

    def _serve_pages(self, address: str) -> None:
        """Serve the pages, or report why not: the samples go on either way."""
        http = importlib.import_module("miglet.metrics.http")
        prometheus = importlib.import_module("miglet.metrics.prometheus")
        self._pages = prometheus.Pages(self._fresh_seconds())
        try:
            self._server = http.MetricsServer(*http.parse_listen(address), self._pages)
        except OSError as error:
            message = f"cannot listen on {address}: {error}"
            hint = "choose another metrics.listen"
            self.report(
                FaultNoted("misconfig", "metrics_listen", message, "metrics", hint)
            )
