"""From layers to valid settings, or to the list of every mistake in them.

There is one way to judge a configuration; the start, a reload and ``UpdateConfig``
all go it, and nothing is ever applied in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from miglet.config.rules import rule_faults
from miglet.config.schema import KEYS, SECTIONS, Key, found, parse, value_text
from miglet.config.section import thawed
from miglet.config.settings import Settings
from miglet.config.sources import UPDATE, Layers, Value, overlay_layer
from miglet.config.validation import missing_faults, schema_faults
from miglet.errors import Fault, Misconfigured

DEFAULT = "default"

#: Nobody reads on after so many; the rest is counted.
MOST_FAULTS = 100

#: What an ``Error`` event needs to reach the right controller as the right machine.
ESSENTIAL = (
    "pool_id",
    "vm_id",
    "org_id",
    "controller.endpoint",
    "controller.allow_insecure",
    "controller.proxy",
    "controller.auth",
)

LATER = "may not change at run time: takes effect with the next start"


class Origin(NamedTuple):
    """Where an effective value came from."""

    #: E.g. ``environment MIGLET_POOL_ID``.
    source: str
    #: Source and masked value of what it overrode, nearest first.
    overrides: tuple[tuple[str, str], ...] = ()


class Loaded(NamedTuple):
    """A valid configuration and where each of its values came from."""

    settings: Settings
    origins: dict[str, Origin]


@dataclass(frozen=True)
class Draft:
    """A configuration that may still be wrong: its values, origins and faults."""

    values: dict[str, Any]
    origins: dict[str, Origin]
    faults: list[Fault]

    def loaded(self) -> Loaded:
        """The valid configuration; raises Misconfigured with every fault."""
        if self.faults:
            raise Misconfigured(bounded(self.faults))
        return Loaded(Settings.of(self.values), self.origins)


def load(layers: Layers) -> Loaded:
    """The effective settings of `layers`; raises Misconfigured with every mistake.

    Of each key the highest value is judged; one that it overrides does no harm.
    """
    return judged(drafted(layers)).loaded()


def drafted(layers: Layers) -> Draft:
    """The highest value of each key, parsed; what cannot be parsed is left out."""
    draft = Draft({}, {}, layers.faults)
    for key in KEYS.values():
        given = given_values(key, layers)
        if given:
            draft.origins[key.name] = origin(key, given)
            take(draft, key, given[0])
        elif not key.required:
            draft.origins[key.name] = Origin(DEFAULT)
            draft.values[key.name] = thawed(key.rules["default"])
    return draft


def given_values(key: Key, layers: Layers) -> list[Value]:
    """What the layers say of `key`, the highest first.

    ``auto`` leaves the decision to the machine, where the machine has decided.
    """
    given = [layer.values[key.name] for layer in layers if key.name in layer.values]
    if key.kind == "auto or boolean" and key.name in layers.machine.values:
        given = [each for each in given if str(each.raw).strip().lower() != "auto"]
    return given


def take(draft: Draft, key: Key, value: Value) -> None:
    """Add `value` to `draft`, or the fault of it."""
    try:
        draft.values[key.name] = parse(key, value.raw)
    except ValueError as error:
        draft.faults.append(Fault(key.name, value.source, str(error)))


def origin(key: Key, given: list[Value]) -> Origin:
    """Where the first of `given` came from and what it overrode, defaults included."""
    overridden = [(value.source, raw_text(key, value.raw)) for value in given[1:]]
    if key.rules.get("default") is not None:
        overridden.append((DEFAULT, value_text(key, key.rules["default"])))
    return Origin(given[0].source, tuple(overridden))


def raw_text(key: Key, raw: Any) -> str:
    """An overridden value for people; it may be a wrong one."""
    try:
        return value_text(key, parse(key, raw))
    except ValueError:
        return found(key, raw)


def judged(draft: Draft) -> Draft:
    """`draft` with what schema and rules have against it."""
    sources = {key: each.source for key, each in draft.origins.items()}
    faults = draft.faults + schema_faults(draft.values, sources)
    faults += missing_keys(draft, faults)
    doubtful = {fault.key for fault in faults}
    faults += rule_faults(draft.values, sources, doubtful)
    return replace(draft, faults=faults)


def missing_keys(draft: Draft, faults: list[Fault]) -> list[Fault]:
    """Required keys that are not set, unless a source that may set them is unusable."""
    if any(not fault.key for fault in faults):
        return []
    wrong = {fault.key for fault in faults}
    return [each for each in missing_faults(draft.values) if each.key not in wrong]


def bounded(faults: list[Fault]) -> list[Fault]:
    """`faults`, or the first of them and a count."""
    more = len(faults) - MOST_FAULTS
    if more <= 0:
        return faults
    rest = Fault("", "configuration", f"{more} more mistakes are not listed")
    return [*faults[:MOST_FAULTS], rest]


def salvage(layers: Layers) -> Settings | None:
    """Settings good enough to send the ``Error`` event, of a broken configuration.

    A section that is wrong falls back to its defaults; None where that touches who
    the machine is or how it reaches the controller and proves itself there.
    """
    draft = judged(drafted(layers))
    wrong = {fault.key for fault in draft.faults} & {*KEYS, *SECTIONS}
    wrong |= {key.name for key in KEYS.values() if key.name not in draft.values}
    if any(name.startswith(ESSENTIAL) for name in wrong):
        return None
    return Settings.of({**draft.values, **defaults({section(each) for each in wrong})})


def section(name: str) -> str:
    """The section that the key or section `name` is in."""
    return name.rpartition(".")[0]


def defaults(sections: set[str]) -> dict[str, Any]:
    """The defaults of the keys right in `sections` that are not essential.

    Whole sections, because the rules that bind two keys stay within one.
    """
    return {
        key.name: thawed(key.rules["default"])
        for key in KEYS.values()
        if section(key.name) in sections and not key.name.startswith(ESSENTIAL)
    }


def update(current: Loaded, overlay: object) -> Loaded:
    """`current` with ``UpdateConfig``'s object over it, valid as a whole.

    `overlay` has nested or dotted keys. Raises Misconfigured with every reason
    against it; a key that may not change at run time is one, unless it is the same.
    """
    layer = overlay_layer(UPDATE, overlay)
    draft = Draft(current.settings.flat(), dict(current.origins), list(layer.faults))
    for name, value in layer.values.items():
        draft.origins[name] = renewed(current, KEYS[name])
        take(draft, KEYS[name], value)
    return changed(current.settings, judged(draft)).loaded()


def renewed(current: Loaded, key: Key) -> Origin:
    """The origin of a key that ``UpdateConfig`` sets, perhaps once more."""
    source, overrides = current.origins[key.name]
    if source == UPDATE:
        return current.origins[key.name]
    shown = value_text(key, current.settings.flat()[key.name])
    return Origin(UPDATE, ((source, shown), *overrides))


def changed(settings: Settings, draft: Draft) -> Draft:
    """`draft` with a fault for each difference from `settings` that must wait."""
    wrong = {fault.key for fault in draft.faults}
    late = [
        Fault(key.name, draft.origins[key.name].source, LATER)
        for key in KEYS.values()
        if not key.runtime and key.name in draft.values and key.name not in wrong
        if draft.values[key.name] != settings.flat()[key.name]
    ]
    return replace(draft, faults=draft.faults + late)


def reload(current: Loaded, layers: Layers) -> Loaded:
    """`layers` read anew, below what ``UpdateConfig`` has set since the start.

    Raises Misconfigured for mistakes and for keys that must wait for the next start.
    """
    kept = standing_update(current)
    draft = drafted(replace(layers, update=overlay_layer(UPDATE, kept)))
    return changed(current.settings, judged(draft)).loaded()


def standing_update(current: Loaded) -> Mapping[str, Any]:
    """What ``UpdateConfig`` has set, by dotted key."""
    flat = current.settings.flat()
    origins = current.origins.items()
    return {key: flat[key] for key, origin in origins if origin.source == UPDATE}
