"""Takes a sample of the machine: every metric once, in a few milliseconds.

A sample never fails and never waits: what cannot be read is None.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from miglet.metrics.machine import METRICS, UNREADABLE, Machine, Metric, begin

log = logging.getLogger(__name__)

#: What stands in a sample for a metric that the settings leave out.
LEFT_OUT: dict[str, Any] = {
    "disk_used_bytes": None,
    "disk_total_bytes": None,
    "disk_inodes_used_count": None,
    "disk_inodes_total_count": None,
    "network": {},
}


class MetricsSettings(Protocol):
    """The settings under ``metrics`` that a sample depends on."""

    include_disk: bool
    include_network: bool


class Sampler:
    """Samples `machine`; `settings` may be replaced at any time."""

    def __init__(self, settings: MetricsSettings, machine: Machine) -> None:
        self.settings = settings
        self.machine = machine
        self._silent: set[str] = set()
        begin(machine)

    def sample(self) -> dict[str, Any]:
        """The heartbeat's ``vm_health``."""
        return {
            name: LEFT_OUT[name] if self._leaves_out(name) else self._read(name, read)
            for name, read in METRICS.items()
        }

    def _leaves_out(self, name: str) -> bool:
        if name == "network":
            return not self.settings.include_network
        return name.startswith("disk_") and not self.settings.include_disk

    def _read(self, name: str, read: Metric) -> Any:
        try:
            return read(self.machine)
        except UNREADABLE as error:
            if name not in self._silent:
                log.debug("%s cannot be read: %s", name, error)
                self._silent.add(name)
            return None
