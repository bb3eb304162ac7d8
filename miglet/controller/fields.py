"""An answer's JSON, read strictly, and its fields, each named when it is wrong.

What the contract does not name is ignored. The one rule: nothing but BadAnswer
comes out of a peer's bytes, whatever they are.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any, NoReturn

from miglet.errors import BadAnswer

#: RFC 3339, 5.6; GitHub's own times have seven digits after the point.
INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)

#: What JSON calls a Python type.
KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class Fields:
    """The fields of one answer, an object; raises BadAnswer naming the field."""

    def __init__(
        self, body: bytes, source: str = "the answer", list_as: str = ""
    ) -> None:
        #: Where the object came from, for the error.
        self.source = source
        self.values = self._object(body, list_as)

    def text(self, name: str) -> str:
        """A field that has to be there and to say something."""
        value = self.of_kind(name, str)
        if not value:
            self.wrong(name, "empty")
        return value

    def word(self, name: str) -> str:
        """A text that can travel in a header or an environment: printable ASCII."""
        value = self.text(name)
        if not all("!" <= character <= "~" for character in value):
            self.wrong(name, "not one printable ASCII word")
        return value

    def text_or_null(self, name: str) -> str | None:
        """A text; None where it is null or missing."""
        return None if self.values.get(name) is None else self.of_kind(name, str)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where it is null or missing."""
        values = self.list(name)
        for value in values:
            if not isinstance(value, str):
                self.wrong(name, f"holds {kind(value)}, text expected")
        return tuple(values)

    def list(self, name: str) -> list[Any]:
        """A list of anything; empty where it is null or missing."""
        return [] if self.values.get(name) is None else self.of_kind(name, list)

    def instant_or_null(self, name: str) -> float | None:
        """A time as Unix seconds; None where it is null, missing or empty."""
        text = self.text_or_null(name)
        if not text:
            return None
        at = instant(text)
        if at is None:
            self.wrong(name, "not a time such as 2026-01-15T10:30:00Z")
        return at

    def present(self, name: str) -> Any:
        if name not in self.values:
            self.wrong(name, "missing")
        return self.values[name]

    def of_kind(self, name: str, expected: type) -> Any:
        value = self.present(name)
        if not isinstance(value, expected):
            self.wrong(name, f"{kind(value)}, {KINDS[expected]} expected")
        return value

    def wrong(self, name: str, reason: str) -> NoReturn:
        raise BadAnswer(f"{self.source}: {name}: {reason}")

    def _object(self, body: bytes, list_as: str) -> dict[str, Any]:
        try:
            values = strict_json(body)
        except (ValueError, RecursionError) as error:
            reason = f"{type(error).__name__}: not JSON that we take"
            raise BadAnswer(f"{self.source}: {reason}") from None
        if list_as and isinstance(values, list):
            return {list_as: values}
        if not isinstance(values, dict):
            reason = f"{kind(values)}, an object expected"
            raise BadAnswer(f"{self.source}: {reason}")
        return values


def kind(value: object) -> str:
    return KINDS[type(value)]


def strict_json(body: bytes) -> Any:
    """The JSON in `body`, UTF-8, no NaN, no infinity; raises ValueError."""
    return json.loads(
        body.decode("utf-8"), parse_constant=no_number, parse_float=finite
    )


def no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def instant(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; None if it is not one."""
    parts = INSTANT.fullmatch(text)
    if parts is None:
        return None
    day, hour, fraction, zone = parts.groups(default="")
    digits = (fraction[1:] + "000000")[:6]
    zone = zone.upper().replace("Z", "+00:00")
    try:
        return datetime.fromisoformat(f"{day}T{hour}.{digits}{zone}").timestamp()
    except (ValueError, OverflowError):
        return None
