"""The settings that exist, read once from ``schema.json``.

The schema is the only place that names a key; everything else (environment
variables, metadata attributes, documentation) is derived from ``KEYS``.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

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
        return bool(self.rules.get("x-runtime", False))

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


SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

#: Upper-case so that ``kB``, ``KB`` and ``kb`` are one unit.
BYTES = {"B": 1}
BYTES |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
BYTES |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)}

NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
PLAIN = re.compile(NUMBER)
PARTS = re.compile(
    rf"(?:({NUMBER})h)?(?:({NUMBER})m)?(?:({NUMBER})s)?(?:({NUMBER})ms)?"
)
SIZE = re.compile(rf"({NUMBER})([kmgt]?i?b)?", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds in ``200ms``, ``30s``, ``1h30m`` or a plain number of seconds.

    Raises ValueError for anything else, negative numbers included.
    """
    if PLAIN.fullmatch(text):
        return round(float(text), 6)
    parts = PARTS.fullmatch(text)
    if not text or not parts:
        raise ValueError("not a duration")
    # Rounded, so that 1.2 s is the float 1.2 however it is put together.
    amounts = zip(parts.groups(), SECONDS.values(), strict=True)
    return round(sum(float(amount) * unit for amount, unit in amounts if amount), 6)


def duration_text(seconds: float) -> str:
    """The shortest usual form: ``1h30m``, ``200ms``, ``0s``."""
    milliseconds = round(seconds * 1000)
    if abs(seconds * 1000 - milliseconds) > 1e-6:
        return f"{seconds:.6f}".rstrip("0") + "s"
    text = ""
    for unit, length in (("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        amount, milliseconds = divmod(milliseconds, length)
        text += f"{amount}{unit}" if amount else ""
    return text or "0s"


def parse_size(text: str) -> int:
    """Bytes in ``5GB``, ``512MiB``, ``100kB`` or a plain number of bytes.

    ``5G`` is refused: some tools mean 1000s by it and others 1024s.
    """
    match = SIZE.fullmatch(text)
    if not match or (match[2] or "B").upper() not in BYTES:
        raise ValueError("not a size")
    return round(float(match[1]) * BYTES[(match[2] or "B").upper()])


def size_text(size: int) -> str:
    """The largest unit that divides `size` evenly: ``5GB``, ``512MiB``, ``1023B``."""
    evenly = [unit for unit, length in BYTES.items() if size and size % length == 0]
    unit = max(evenly, key=BYTES.__getitem__, default="B")
    return f"{size // BYTES[unit]}{SPELLINGS[unit]}"


SPELLINGS = {unit: unit.replace("KB", "kB").replace("IB", "iB") for unit in BYTES}


TRUTHS = {"true": True, "yes": True, "on": True, "1": True}
TRUTHS |= {"false": False, "no": False, "off": False, "0": False}
NULLS = frozenset({"", "null", "~"})
INTEGER = re.compile(r"-?[0-9]{1,18}")

#: How much of a wrong value is repeated in its fault.
SHOWN_LENGTH = 60

EXPECTED = {
    "duration": "a duration such as 200ms, 30s, 1h30m or a number of seconds",
    "size": "a size such as 5GB, 512MiB, 100kB or a number of bytes",
    "integer": "a whole number",
    "boolean": "true or false",
    "auto or boolean": "auto, true or false",
    "list": "a list, or text with commas",
    "text": "text",
}

#: What is no scalar and not in here is a mapping, whatever its source makes of one.
SHAPES: dict[type, str] = {list: "a list", tuple: "a list", type(None): "nothing"}
SCALARS = (str, int, float)


def parse(key: Key, raw: Any) -> Any:
    """The value of `key` that `raw` stands for.

    Raises ValueError whose text says what was expected and what was found.
    """
    if key.kind == "list":
        return [plain(key, each) for each in elements(raw)]
    text = plain(key, raw)
    if text.lower() in NULLS and key.nullable:
        return None
    try:
        return PARSERS[key.kind](choice(key, text))
    except (ValueError, KeyError):
        raise ValueError(f"expected {expected(key)}, found {found(key, raw)}") from None


def elements(raw: Any) -> list[Any]:
    """The members of a list, or of text with commas."""
    if raw is None or isinstance(raw, str):
        text = (raw or "").strip()
        return text.split(",") if text.lower() not in NULLS else []
    return raw if isinstance(raw, list) else [raw]


def plain(key: Key, raw: Any) -> str:
    """`raw` as text without the space around it; ValueError if it has no such form."""
    if isinstance(raw, bool):
        return str(raw).lower()
    if raw is not None and not isinstance(raw, SCALARS):
        raise ValueError(f"expected {expected(key)}, found {found(key, raw)}")
    text = "" if raw is None else scalar_text(raw).strip()
    if not text and not key.nullable:
        raise ValueError(f"is empty; expected {expected(key)}")
    if not text.isprintable():
        raise ValueError(f"has characters that cannot be printed: {found(key, raw)}")
    return text


def scalar_text(raw: Any) -> str:
    """A scalar as text; a float without an exponent, which no source may write."""
    return f"{raw:f}" if isinstance(raw, float) else str(raw)


def choice(key: Key, text: str) -> str:
    """`text` in the schema's own spelling, where `key` is one of a few words."""
    words = [word for word in key.rules.get("enum", ()) if isinstance(word, str)]
    known = {word.lower(): word for word in words}
    known |= key.rules.get("x-aliases", {})
    return str(known.get(text.lower(), text))


def truth(text: str) -> bool:
    """True or false for the usual words; KeyError for any other."""
    return TRUTHS[text.lower()]


def auto_or_truth(text: str) -> str | bool:
    """`auto`, or true or false for the usual words; KeyError for any other."""
    return "auto" if text.lower() == "auto" else truth(text)


def whole(text: str) -> int:
    """A whole number of at most 18 digits; ValueError for anything else."""
    if not INTEGER.fullmatch(text):
        raise ValueError("not a whole number")
    return int(text)


PARSERS: dict[str, Callable[[str], Any]] = {
    "duration": parse_duration,
    "size": parse_size,
    "integer": whole,
    "boolean": truth,
    "auto or boolean": auto_or_truth,
    "text": str,
}


def expected(key: Key) -> str:
    """What a value of `key` looks like, in words."""
    return str(key.rules.get("x-expected", EXPECTED[key.kind]))


def found(key: Key, raw: Any) -> str:
    """What was written instead, masked and short enough for one line."""
    if not isinstance(raw, SCALARS):
        return SHAPES.get(type(raw), "a mapping")
    text = masked(key, str(raw).lower() if isinstance(raw, bool) else str(raw))
    cut = text[:SHOWN_LENGTH] + "…" if len(text) > SHOWN_LENGTH else text
    return ascii(cut) if not cut.isprintable() else repr(cut)


def masked(key: Key, text: str) -> str:
    """`text`, or what of it is no secret: a path, a URL without its user part."""
    if not key.secret or text.startswith("/"):
        return text
    try:
        url = urlsplit(text)
    except ValueError:
        return "***"
    if not url.hostname or url.query or url.fragment:
        return "***"
    _, at, host = url.netloc.rpartition("@")
    return url._replace(netloc="***@" + host if at else host).geturl()


def value_text(key: Key, value: Any) -> str:
    """`value` as one would write it in the file, masked if it is secret."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "(none)"
    return TEXTS.get(key.kind, lambda each: masked(key, str(each)))(value)


TEXTS: dict[str, Callable[[Any], str]] = {
    "duration": duration_text,
    "size": size_text,
    "boolean": lambda value: str(value).lower(),
    "auto or boolean": lambda value: str(value).lower(),
}
