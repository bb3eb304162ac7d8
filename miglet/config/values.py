"""From what a source wrote to a typed value, the same way for every source.

A value is text until the schema says what it is: ``off`` is a choice of
``bootstrap.docker`` and false for ``metrics.include_disk``, in YAML as in the
environment. Numbers and truth values of JSON become text first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from miglet.config.quantities import (
    duration_text,
    parse_duration,
    parse_size,
    size_text,
)
from miglet.config.schema import Key

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
