"""Complete settings for tests that need a few of them: defaults, and what is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miglet.config.schema import KEYS
from miglet.config.section import nested
from miglet.config.settings import Settings

REQUIRED = {
    "pool_id": "pool-1",
    "vm_id": "vm-1",
    "org_id": "org-1",
    "controller.endpoint": "http://127.0.0.1:8080",
}


def sample_settings(changes: Mapping[str, Any] | None = None) -> Settings:
    """The defaults with `changes`, which has nested or dotted keys, over them."""
    defaults = {
        key.name: key.rules["default"] for key in KEYS.values() if not key.required
    }
    return Settings.of({**defaults, **REQUIRED, **flat(changes or {})})


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`mapping` by dotted keys."""
    values: dict[str, Any] = {}
    for name, value in nested(mapping).items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = value
    return values
