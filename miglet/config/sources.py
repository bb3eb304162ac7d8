"""Where settings come from: one small function a source, each giving a layer.

A layer holds what its source says, not yet parsed, and the faults met while it was
read: a source that cannot be used never keeps the others from being checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from miglet.config.flattening import Flattening, Value, entries_of, shown
from miglet.config.reading import Unreadable, table_of
from miglet.config.schema import (
    ATTRIBUTE_NAMES,
    ATTRIBUTE_PREFIX,
    ENVIRONMENT_NAMES,
    ENVIRONMENT_PREFIX,
    KEYS,
    suggestion,
)
from miglet.errors import Fault

#: Variables that mean something to MIGlet but are no settings.
RESERVED = frozenset(
    {
        "MIGLET_AZURE_METADATA_ENDPOINT",
        "MIGLET_CLOUD",
        "MIGLET_CONFIG",
        "MIGLET_DMI_ROOT",
        "MIGLET_FAILPOINTS",
        "MIGLET_JOB_DIRECTORY",
        "MIGLET_SOCKET",
    }
)

#: The attribute whose text is a whole YAML document.
DOCUMENT_ATTRIBUTE = "miglet-config"

UPDATE = "UpdateConfig"


@dataclass(frozen=True)
class Layer:
    """What one source says: raw values by dotted key, and what is wrong with it."""

    name: str
    values: Mapping[str, Value] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def over(self, lower: Layer) -> Layer:
        """Both layers as one, this one's values first."""
        values = {**lower.values, **self.values}
        return Layer(self.name, values, self.faults + lower.faults)


@dataclass(frozen=True)
class Layers:
    """All sources, the highest priority first; defaults come below the last."""

    update: Layer = Layer(UPDATE)
    command_line: Layer = Layer("command line")
    metadata: Layer = Layer("metadata")
    environment: Layer = Layer("environment")
    file: Layer = Layer("file")
    #: What the machine is known as (its ``vm_id``) when no other source says so.
    machine: Layer = Layer("machine")

    def __iter__(self) -> Iterator[Layer]:
        yield self.update
        yield self.command_line
        yield self.metadata
        yield self.environment
        yield self.file
        yield self.machine

    @property
    def faults(self) -> list[Fault]:
        """What is wrong with the sources themselves."""
        return [fault for layer in self for fault in layer.faults]


def document_layer(name: str, text: str) -> Layer:
    """The settings in a YAML document; `name` is its source in faults."""
    try:
        table = table_of(text)
    except Unreadable as error:
        return unusable(name, str(error))
    return entries_layer(name, table)


def overlay_layer(name: str, overlay: object) -> Layer:
    """The settings in a JSON object, with nested or dotted keys."""
    if not isinstance(overlay, Mapping):
        return unusable(name, "expected an object of settings")
    return entries_layer(name, overlay)


def entries_layer(name: str, mapping: Any) -> Layer:
    """The settings in a mapping, whatever it was read from."""
    flattening = Flattening(name)
    flattening.take(entries_of(mapping))
    return Layer(name, flattening.values, tuple(flattening.faults))


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """The ``MIGLET_*`` variables; every other variable is none of our business."""
    ours = {
        name: text
        for name, text in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name not in RESERVED
    }
    return named_layer("environment", ours, ENVIRONMENT_NAMES)


def attributes_layer(name: str, attributes: Mapping[str, str]) -> Layer:
    """The ``miglet-*`` attributes of a machine; they go before ``miglet-config``.

    Attributes of other names are ignored; ``_`` and capitals are taken for ``-`` and
    small letters, because not every cloud allows all of them.
    """
    usual = {key.lower().replace("_", "-"): text for key, text in attributes.items()}
    document = usual.pop(DOCUMENT_ATTRIBUTE, "")
    ours = {
        key: text for key, text in usual.items() if key.startswith(ATTRIBUTE_PREFIX)
    }
    single = named_layer(name, ours, ATTRIBUTE_NAMES)
    return single.over(document_layer(f"{name} {DOCUMENT_ATTRIBUTE}", document))


def named_layer(name: str, texts: Mapping[str, str], known: Mapping[str, str]) -> Layer:
    """The settings in `texts`, whose names `known` maps to keys."""
    values = {
        known[each]: Value(text, f"{name} {each}")
        for each, text in texts.items()
        if each in known
    }
    unknown = (each for each in texts if each not in known)
    return Layer(name, values, tuple(nameless(name, each, known) for each in unknown))


def nameless(source: str, name: str, known: Iterable[str]) -> Fault:
    """The fault of a variable or attribute that sets nothing."""
    key = name[len(ENVIRONMENT_PREFIX) :].lower()
    reason = "is not a known setting"
    return Fault(shown(key), f"{source} {shown(name)}", reason, suggestion(name, known))


def command_line_layer(assignments: Iterable[str]) -> Layer:
    """The ``--set key=value`` options; the last of a key counts."""
    values, faults = {}, []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        source = f"command line --set {shown(key)}"
        if not equals:
            faults.append(Fault("", source, "expected key=value"))
        elif key not in KEYS:
            hint = suggestion(key, KEYS)
            faults.append(Fault(shown(key), source, "is not a known setting", hint))
        else:
            values[key] = Value(text, source)
    return Layer("command line", values, tuple(faults))


def unusable(name: str, reason: str) -> Layer:
    """A layer without settings, because its source cannot be used at all."""
    return Layer(name, {}, (Fault("", name, reason),))
