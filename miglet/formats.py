"""Text formats that several protocols share: times, strict JSON, printable words.

Light enough for every process: nothing here imports a library.
"""

from __future__ import annotations

import json
import math
import re
import time
from datetime import datetime, timezone
from typing import Any, NoReturn

#: Any 64-bit integer and any double that Python prints has fewer characters.
LONGEST_NUMBER = 40

#: Deeper than any document that is exchanged, and far less than what exhausts a stack.
DEEPEST = 64

#: The last moment that RFC 3339 can express in UTC, to the millisecond.
LATEST = 253402300799.999

#: RFC 3339, 5.6; GitHub's own times have seven digits after the point.
RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905

#: The three forms of RFC 9110, 5.6.7: of today, of RFC 850, of asctime(3).
HTTP_DATES = (
    re.compile(
        r"[A-Z][a-z]{2}, (?P<day>\d\d) (?P<month>\w{3}) (?P<year>\d{4})"
        r" (?P<clock>\d\d:\d\d:\d\d) GMT",
        re.ASCII,
    ),
    re.compile(
        r"[A-Z][a-z]{5,8}, (?P<day>\d\d)-(?P<month>\w{3})-(?P<year>\d\d)"
        r" (?P<clock>\d\d:\d\d:\d\d) GMT",
        re.ASCII,
    ),
    re.compile(
        r"[A-Z][a-z]{2} (?P<month>\w{3}) (?P<day>[ \d]\d)"
        r" (?P<clock>\d\d:\d\d:\d\d) (?P<year>\d{4})",
        re.ASCII,
    ),
)


def rfc3339(at: float) -> str:
    """Wall time `at` (seconds) in UTC with milliseconds: 2026-01-15T10:30:00.123Z."""
    seconds, milliseconds = divmod(int(at * 1000), 1000)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{clock}.{milliseconds:03d}Z"


def parse_rfc3339(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time, at most LATEST; None if it is not one."""
    parts = RFC_3339.fullmatch(text)
    if parts is None:
        return None
    day, clock, fraction, zone = parts.groups(default="")
    digits = (fraction[1:] + "000000")[:6]
    zone = zone.upper().replace("Z", "+00:00")
    try:
        found = datetime.fromisoformat(f"{day}T{clock}.{digits}{zone}").timestamp()
    except (ValueError, OverflowError):
        return None
    return min(found, LATEST)


def parse_http_date(text: str | None) -> float | None:
    """Unix seconds of an HTTP date, at most LATEST; None if it is not one."""
    stripped = (text or "").strip()
    found = next(filter(None, (form.fullmatch(stripped) for form in HTTP_DATES)), None)
    if found is None or found["month"] not in MONTHS:
        return None
    year = int(found["year"])
    if year < 100:
        year += 2000 if year < 70 else 1900
    hour, minute, second = map(int, found["clock"].split(":"))
    month = MONTHS.index(found["month"]) + 1
    if not (1 <= int(found["day"]) <= 31 and hour < 24 and minute < 60 and second < 61):
        return None
    # Not calendar.timegm: a start is spared that module, and locale behind it.
    month_began = datetime(year, month, 1, tzinfo=timezone.utc).timestamp()
    minutes = ((int(found["day"]) - 1) * 24 + hour) * 60 + minute
    return min(month_began + minutes * 60 + second, LATEST)


def strict_json(body: bytes, deepest: int = DEEPEST) -> Any:
    """The JSON in `body`, read as every reader reads it; raises ValueError.

    UTF-8, no NaN, no infinity, no key twice in one object, no half of a surrogate pair
    (RFC 7493), no number that takes long to read, at most `deepest` levels.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {deepest} levels") from None
    require_plain(value, deepest)
    return value


def require_plain(value: Any, deepest: int = DEEPEST) -> None:
    """Raise ValueError where JSON is too deep, or has text that is no Unicode.

    Whatever handles the value later may recurse over it, and write its text as UTF-8.
    """
    level = [value]
    for _ in range(deepest + 1):
        texts = [item for item in level if isinstance(item, str)]
        level = [part for item in level for part in _parts(item)]
        if not all(map(_is_unicode, texts)):
            raise ValueError("half of a surrogate pair")
        if not level:
            return
    raise ValueError(f"nested deeper than {deepest} levels")


def one_line(text: str) -> str:
    """`text` with every character that is not printable escaped, as Python does it.

    Required wherever a line is a unit of a protocol or a person reads it: a line break
    in a job's name would be another assignment for systemd, or another line of a log,
    and a control or direction character would change what a terminal shows.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def is_printable_word(text: str) -> bool:
    """Whether `text` can travel in a header or an environment: printable ASCII."""
    return bool(text) and all("!" <= character <= "~" for character in text)


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits) if len(digits) <= LONGEST_NUMBER else math.inf
    if not math.isfinite(number):
        raise ValueError("a number that is too large or too long")
    return number


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def canonical_command(name: str) -> str:
    """`set_log_level`, `SetLogLevel` and `SETLOGLEVEL` are one command."""
    return name.replace("_", "").lower()
