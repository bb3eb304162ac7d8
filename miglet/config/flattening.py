"""A document's nested and dotted keys to one flat layer of known settings.

Only known sections are entered, so that no document, however deep or wide, costs
more than its own length; everything else in it becomes a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from miglet.config.reading import Entry, Table
from miglet.config.schema import KEYS, SECTIONS, suggestion
from miglet.errors import Fault

#: Looking for the nearest known name is slow; nobody reads more hints than these.
MOST_HINTS = 50

#: How much of an unknown key is repeated.
SHOWN_LENGTH = 80


class Value(NamedTuple):
    """What one source says of one key, as it was written."""

    raw: Any
    #: E.g. ``/etc/miglet/miglet.yaml:12``.
    source: str


class Flattening:
    """The settings and the faults of one document, gathered entry by entry."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.values: dict[str, Value] = {}
        self.faults: list[Fault] = []
        self._seen: dict[str, str] = {}

    def take(self, entries: list[Entry], prefix: str = "") -> None:
        """Gather `entries`, found in the section that `prefix` names."""
        for entry in entries:
            name = prefix + entry.key
            source = f"{self.source}:{entry.line}" if entry.line else self.source
            if name not in KEYS and name not in SECTIONS:
                self._refuse_unknown(name, source)
            elif name in self._seen:
                first = self._seen[name]
                self._refuse(name, source, f"is there twice; the first is {first}")
            else:
                self._seen[name] = source
                self._take_known(name, entry.node, source)

    def _take_known(self, name: str, node: Any, source: str) -> None:
        if name in KEYS:
            self.values[name] = Value(node, source)
        elif isinstance(node, (Table, Mapping)):
            self.take(entries_of(node), name + ".")
        elif node is not None:
            reason = "is a section; expected a mapping of settings below it"
            self._refuse(name, source, reason)

    def _refuse_unknown(self, name: str, source: str) -> None:
        plenty = len(self.faults) >= MOST_HINTS
        hint = "" if plenty else suggestion(name, [*KEYS, *SECTIONS])
        self._refuse(shown(name), source, "is not a known setting", hint)

    def _refuse(self, name: str, source: str, reason: str, hint: str = "") -> None:
        self.faults.append(Fault(name, source, reason, hint))


def entries_of(node: Table | Mapping[Any, Any]) -> list[Entry]:
    """The entries of a table, or of a mapping that came as JSON."""
    if isinstance(node, Table):
        return node.entries
    return [Entry(str(key), value) for key, value in node.items()]


def shown(name: str) -> str:
    """An unknown key, fit for a message: printable, of bounded length, never empty."""
    cut = name[:SHOWN_LENGTH] + "…" if len(name) > SHOWN_LENGTH else name
    return cut if cut and cut.isprintable() else ascii(cut)
