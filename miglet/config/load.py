"""From layers to valid settings, or to the list of every mistake in them.

There is one way to judge a configuration; the start, a reload and ``UpdateConfig``
all go it, and nothing is ever applied in part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import jsonschema

from miglet.config.schema import (
    KEYS,
    SCHEMA,
    SECTIONS,
    TEXTS,
    Key,
    duration_text,
    expected,
    found,
    masked,
    parse,
    size_text,
    suggestion,
    value_text,
)
from miglet.config.section import nested, thawed
from miglet.config.settings import Settings
from miglet.config.sources import UPDATE, Layers, Value, overlay_layer
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


def fallback_settings(layers: Layers) -> Settings | None:
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


VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

#: Source of a value that no source gives.
NOWHERE = "not set"


def schema_faults(flat: Mapping[str, Any], sources: Mapping[str, str]) -> list[Fault]:
    """What the schema says against `flat`; missing keys are ``missing_faults``."""
    faults: dict[str, Fault] = {}
    for error in VALIDATOR.iter_errors(tree(flat)):
        if error.validator == "required":
            continue
        names = [part for part in error.absolute_path if isinstance(part, str)]
        key = KEYS[".".join(names)]
        reason, hint = reason_and_hint(key, error)
        # One fault a key: a value that is too long may break its pattern as well.
        faults.setdefault(key.name, Fault(key.name, sources[key.name], reason, hint))
    return list(faults.values())


def tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`flat` with its dotted keys as nested objects."""
    return {
        name: tree(value) if isinstance(value, Mapping) else value
        for name, value in nested(flat).items()
    }


def reason_and_hint(key: Key, error: jsonschema.ValidationError) -> tuple[str, str]:
    """Reason and hint for one finding of jsonschema."""
    was, allowed = found(key, error.instance), cast(Any, error.validator_value)
    if error.validator == "enum":
        words = ", ".join(allowed)
        hint = suggestion(str(error.instance), allowed)
        return f"expected one of {words}; found {was}", hint
    if error.validator in ("minimum", "maximum"):
        word = "at least" if error.validator == "minimum" else "at most"
        limit, value = (
            quantity(key, allowed),
            quantity(key, error.instance),
        )
        return f"must be {word} {limit}, found {value}", ""
    if error.validator == "uniqueItems":
        return "has the same member twice", ""
    if error.validator == "maxItems":
        return f"has more than {allowed} members", ""
    return f"expected {expected(key)}, found {was}", ""


def quantity(key: Key, value: Any) -> str:
    """A number in the unit of `key`."""
    if key.kind == "duration":
        return duration_text(value)
    return size_text(value) if key.kind == "size" else str(value)


def missing_faults(flat: Mapping[str, Any]) -> list[Fault]:
    """The required keys that no source gives."""
    return [
        missing(key) for key in KEYS.values() if key.required and key.name not in flat
    ]


def missing(key: Key) -> Fault:
    """The fault of a required key, with the ways to set it."""
    example = key.rules["examples"][0]
    meaning = key.rules["description"].removesuffix(".")
    hint = (
        f"set it in the file ({key.name}: {example}), as {key.environment_name} "
        f"or as metadata attribute {key.attribute_name}"
    )
    return Fault(key.name, NOWHERE, f"is required: {meaning}", hint)


LOOPBACK = re.compile(r"localhost|.*\.localhost|127(\.[0-9]{1,3}){3}|::1")

#: Takes the values of the keys; gives the reason why they do not go together, or "".
Check = Callable[..., str]


class Rule(NamedTuple):
    """A check and the keys whose values it takes."""

    keys: tuple[str, ...]
    check: Check


RULES: list[Rule] = []


def rule(*keys: str) -> Callable[[Check], Check]:
    """Registers a check of `keys`."""

    def register(check: Check) -> Check:
        RULES.append(Rule(keys, check))
        return check

    return register


def rule_faults(
    flat: Mapping[str, Any], sources: Mapping[str, str], doubtful: Set[str]
) -> Iterator[Fault]:
    """The rules that `flat` breaks; rules on a key in `doubtful` are left out."""
    for keys, check in RULES:
        usable = all(key in flat and key not in doubtful for key in keys)
        reason = check(*(flat[key] for key in keys)) if usable else ""
        if reason:
            yield Fault(keys[0], blamed_source(keys, sources), reason)


def blamed_source(keys: tuple[str, ...], sources: Mapping[str, str]) -> str:
    """The source of the first of `keys` that somebody set."""
    given = [sources[key] for key in keys if sources[key] != "default"]
    return given[0] if given else "default"


def url_fault(url: str) -> str:
    """Why `url` is no base address of a server, or nothing."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        return "expected a URL with a valid host and port"
    if any(character.isspace() for character in url):
        return "expected a URL without spaces"
    return "has a query or a fragment" if parts.query or parts.fragment else ""


@rule("controller.endpoint")
def endpoint_is_a_base_url(endpoint: str) -> str:
    """Credentials do not belong in it: it goes into logs and events."""
    if urlsplit_has_user(endpoint):
        return "must not contain a user or password; use controller.auth"
    return url_fault(endpoint)


def urlsplit_has_user(url: str) -> bool:
    """Whether something stands before an @ in the authority of `url`."""
    return "@" in url.partition("//")[2].partition("/")[0]


@rule("controller.proxy")
def proxy_is_a_url(proxy: str | None) -> str:
    """A proxy may be given with user and password."""
    return url_fault(proxy) if proxy else ""


@rule("runner.proxy")
def runner_proxy_is_a_url(proxy: str | None) -> str:
    """Every job can read it: it has no credentials, which the pattern sees to."""
    return url_fault(proxy) if proxy else ""


@rule("controller.endpoint", "controller.allow_insecure")
def plain_http_stays_on_the_machine(endpoint: str, allow_insecure: bool) -> str:
    """A bearer token on a network needs TLS."""
    if allow_insecure or url_fault(endpoint):
        return ""
    parts = urlsplit(endpoint)
    if parts.scheme == "https" or LOOPBACK.fullmatch(parts.hostname or ""):
        return ""
    return "plain http is for loopback only; use https or set controller.allow_insecure"


@rule("controller.auth.token_path", "controller.auth.type")
def bearer_has_a_token(token_path: str | None, kind: str) -> str:
    """The token itself is never a setting."""
    needed = kind == "bearer" and not token_path
    return "is required when controller.auth.type is bearer" if needed else ""


@rule("controller.auth.certificate_path", "controller.auth.type")
def mtls_has_a_certificate(path: str | None, kind: str) -> str:
    """What the controller knows the machine by."""
    needed = kind == "mtls" and not path
    return "is required when controller.auth.type is mtls" if needed else ""


@rule("controller.auth.key_path", "controller.auth.type")
def mtls_has_a_key(path: str | None, kind: str) -> str:
    """Without its key a certificate proves nothing."""
    return mtls_has_a_certificate(path, kind)


@rule("controller.retry.max_backoff", "controller.retry.initial_backoff")
def backoff_grows(longest: float, first: float) -> str:
    """The first pause is the shortest."""
    return not_shorter(longest, first, "controller.retry.initial_backoff")


@rule("heartbeat.timeout", "heartbeat.interval")
def timeout_covers_a_heartbeat(timeout: float, interval: float) -> str:
    """Else the controller would be called unreachable between two heartbeats."""
    return not_shorter(timeout, interval, "heartbeat.interval")


def not_shorter(value: float, least: float, name: str) -> str:
    """Why `value` is too short beside the setting `name`, or nothing."""
    if value >= least:
        return ""
    was = f"{duration_text(value)} < {duration_text(least)}"
    return f"must not be shorter than {name} ({was})"


@rule("github.metadata_path", "github.token_source")
def metadata_token_has_a_path(path: str | None, source: str) -> str:
    """The token's place differs from image to image: there is no default."""
    needed = source == "metadata" and not path
    return "is required when github.token_source is metadata" if needed else ""


@rule("github.org", "github.token_source")
def metadata_token_has_an_organisation(org: str | None, source: str) -> str:
    """The runner URL comes with the controller's token, but not with this one."""
    needed = source == "metadata" and not org
    return "is required when github.token_source is metadata" if needed else ""


@rule("metrics.listen")
def listen_port_exists(listen: str | None) -> str:
    """Ports end at 65535; 0 lets the kernel choose one."""
    port = int(listen.rpartition(":")[2]) if listen else 0
    return f"port {port} is larger than 65535" if port > 65535 else ""


@rule("paths.runtime", "paths.state")
def folders_differ(runtime: str, state: str) -> str:
    """The runtime folder is emptied at boot, the state folder must not be."""
    return "must not be the same folder as paths.state" if runtime == state else ""


HEADINGS = ("KEY", "VALUE", "SOURCE", "OVERRODE")


def explanation(loaded: Loaded) -> list[dict[str, Any]]:
    """One row a key: ``key``, ``value``, ``source``, ``overrode``.

    Values are as the file would have them (durations and sizes as text); ``overrode``
    lists ``source`` and ``value`` of lower layers, the nearest first.
    """
    flat = loaded.settings.flat()
    return [
        {
            "key": name,
            "value": written(key, flat[name]),
            "source": loaded.origins[name].source,
            "overrode": [
                {"source": source, "value": value}
                for source, value in loaded.origins[name].overrides
            ],
        }
        for name, key in KEYS.items()
    ]


def origins_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Origin]:
    """The origins that went into `rows`, also after a way through JSON."""
    return {
        row["key"]: Origin(
            row["source"],
            tuple((each["source"], each["value"]) for each in row["overrode"]),
        )
        for row in rows
    }


def written(key: Key, value: Any) -> Any:
    """`value` in the form that a file would have it in, masked if it is secret."""
    if key.kind in TEXTS and not isinstance(value, bool):
        return TEXTS[key.kind](value)
    return masked(key, value) if isinstance(value, str) else value


def explain(loaded: Loaded) -> str:
    """The table that ``miglet config`` prints: one line a key, ends with a newline."""
    lines = [HEADINGS, *map(line_of, explanation(loaded))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    return "".join(aligned(line, widths) + "\n" for line in lines)


def line_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """`row` as four texts."""
    overrode = "; ".join(
        f"{each['value']} ({each['source']})" for each in row["overrode"]
    )
    key = KEYS[row["key"]]
    value = row["value"]
    shown = value if isinstance(value, str) else value_text(key, value)
    return key.name, shown, row["source"], overrode


def aligned(line: tuple[str, ...], widths: list[int]) -> str:
    """`line` in columns; the last one is as wide as it likes."""
    padded = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
    return "  ".join([*padded, line[-1]]).rstrip()
