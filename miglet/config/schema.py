"""The settings that exist, read once from ``schema.json``.

The schema is the only place that names a key; everything else (environment
variables, metadata attributes, documentation) is derived from ``KEYS``.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

PATH = os.path.join(os.path.dirname(__file__), "schema.json")

with open(PATH, encoding="utf-8") as stream:
    SCHEMA: dict[str, Any] = json.load(stream)

ENVIRONMENT_PREFIX = "MIGLET_"
ATTRIBUTE_PREFIX = "miglet-"

#: A longer name than this is no misspelling of ours, and slow to compare.
COMPARABLE = 80


@dataclass(frozen=True)
class Key:
    """One setting: what the schema says about it."""

    #: The dotted name.
    name: str
    #: duration, size, integer, boolean, list or text.
    kind: str
    #: The JSON Schema of the value.
    rules: dict[str, Any]
    #: Whether it has no default.
    required: bool

    @property
    def nullable(self) -> bool:
        """Whether null is a value of it."""
        return "null" in self.rules["type"]

    @property
    def runtime(self) -> bool:
        """Whether it may change while MIGlet runs."""
        return bool(self.rules["x-runtime"])

    @property
    def secret(self) -> bool:
        """Whether its value must be masked wherever it is shown."""
        return bool(self.rules.get("x-secret", False))

    @property
    def environment_name(self) -> str:
        """The variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "_").upper()

    @property
    def attribute_name(self) -> str:
        """The instance metadata attribute that sets it."""
        return ATTRIBUTE_PREFIX + self.name.replace(".", "-").replace("_", "-")


def kind_of(rules: dict[str, Any]) -> str:
    """How text becomes a value under `rules`."""
    if "x-unit" in rules:
        return str(rules["x-unit"])
    kinds = {"integer": "integer", "boolean": "boolean", "array": "list"}
    return kinds.get(str(rules["type"]), "text")


def keys_below(section: dict[str, Any], prefix: str = "") -> Iterator[Key]:
    """Every setting in `section`, in the order of the schema."""
    for name, rules in section["properties"].items():
        if "properties" in rules:
            yield from keys_below(rules, f"{prefix}{name}.")
        else:
            required = name in section.get("required", ())
            yield Key(prefix + name, kind_of(rules), rules, required)


def sections_below(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted name of every section in `section`."""
    for name, rules in section["properties"].items():
        if "properties" in rules:
            yield prefix + name
            yield from sections_below(rules, f"{prefix}{name}.")


KEYS = {key.name: key for key in keys_below(SCHEMA)}
SECTIONS = frozenset(sections_below(SCHEMA))
ENVIRONMENT_NAMES = {key.environment_name: key.name for key in KEYS.values()}
ATTRIBUTE_NAMES = {key.attribute_name: key.name for key in KEYS.values()}


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean X?`` for the known name nearest to `name`, or nothing."""
    if len(name) > COMPARABLE:
        return ""
    candidates = list(known)
    same_leaf = [each for each in candidates if each.endswith("." + name)]
    near = difflib.get_close_matches(name, candidates, 1, 0.6)
    best = same_leaf if len(same_leaf) == 1 else near
    return f"did you mean {best[0]}?" if best else ""
