"""The plan: what the test wants to see, read from `double/plan.json`.

The official runner's durations are multiplied by `scale`; durations written in the
plan itself are real seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from tests.runner_double import registry
from tests.runner_double.times import BROKER, PIPELINES, Times

#: What the fixtures of tests make of the official runner's durations: 13 s are 0.26 s.
FAST = 0.02
FLOWS = {"broker": BROKER, "pipelines": PIPELINES}
DEFAULTS: dict[str, Any] = {
    "scale": 1.0,
    "flow": "broker",
    "version": "2.336.0",
    "preflight": None,
    "tokens": {},
    "remove_tokens": {},
    "config": [{}],
    "listener": [{"scenario": "idle"}],
    "remove": [{}],
    "log_page_bytes": 8 * 1024 * 1024,
}


class Plan(NamedTuple):
    """A plan with every key present; unknown keys are refused."""

    entries: dict[str, Any]

    @property
    def scale(self) -> float:
        return float(self.entries["scale"])

    @property
    def times(self) -> Times:
        """The durations of the plan's flow, unscaled."""
        return FLOWS[self.entries["flow"]]

    @property
    def uses_broker(self) -> bool:
        """Whether the flow is GitHub's own, and not that of an older server."""
        return self.entries["flow"] == "broker"

    def scaled(self, seconds: float) -> float:
        """So long a real duration of so many `seconds` lasts here."""
        return seconds * self.scale

    def next_entry(self, root: Path, of: str) -> dict[str, Any]:
        """The entry for this call of `config` or its like; the last repeats."""
        entries = self.entries[of]
        return entries[min(registry.turn(root, of), len(entries) - 1)]

    def save(self, root: Path) -> None:
        path = root / "double" / "plan.json"
        path.write_text(json.dumps(self.entries, indent=1))
        path.chmod(0o644)


def complete(wishes: dict[str, Any]) -> Plan:
    """`wishes` with the defaults filled in; one entry may stand for a list of one."""
    unknown = set(wishes) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"no such key in a plan: {', '.join(sorted(unknown))}")
    entries = {**DEFAULTS, **wishes}
    if entries["flow"] not in FLOWS:
        raise ValueError(f"no such flow: {entries['flow']}; known: {', '.join(FLOWS)}")
    for key in ("config", "listener", "remove"):
        if isinstance(entries[key], dict):
            entries[key] = [entries[key]]
    return Plan(entries)


def load(root: Path) -> Plan:
    return Plan(json.loads((root / "double" / "plan.json").read_text()))
