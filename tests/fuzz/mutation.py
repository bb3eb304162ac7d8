"""Makes one input out of others: bytes that are wrong in the ways that bytes are wrong.

All randomness comes from a `random.Random`, which Hypothesis and Atheris both provide:
a choice can be repeated, and made smaller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

#: What parsers stumble over, as text of a document.
TOKENS = (
    b"\0",
    b"\n",
    b"\r\n",
    b"\x1b[2J",
    b"\x1b]0;x\x07",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\\u0000",
    b"\\u202e",
    "\u2028".encode(),
    "²".encode(),
    "٣".encode(),
    b"0001-01-01T00:00:00Z",
    b"9999-12-31T23:59:59.9999999Z",
    b"9999-12-31T23:59:59-23:59",
    b"Fri, 31 Dec 9999 23:59:60 GMT",
    b"***",
    b"%s%n",
    b"../../etc/passwd",
    b"[" * 2000,
    b'{"a":' * 2000,
    b"a" * 10000,
    b"&a [*a]",
    b"!!python/object:os.system",
    b"? : - [ { , ",
)
#: What stands in for digits.
NUMBERS = (
    b"0",
    b"-1",
    b"-0.0",
    b"0.1",
    b"1e5",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"99",
    b"9999",
    b"9223372036854775808",
    b"9" * 20,
    b"9" * 40,
    b"9" * 5000,
    "²".encode(),
    "٣".encode(),
)


def nested(levels: int) -> Any:
    """A JSON value that is so deep."""
    value: Any = []
    for _ in range(levels):
        value = [value] if levels % 2 else {"a": value}
    return value


#: What stands in for a value of a JSON document.
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    0.5,
    1e308,
    10**19,
    10**39,
    "",
    "\n",
    "\ud800",
    "\x1b[2J",
    "٣",
    "9" * 20,
    "9" * 5000,
    "a" * 5000,
    [],
    nested(31),
    nested(100),
    nested(700),
    {},
    {"": None},
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
)


def flip_bits(data: bytes, random: Random) -> bytes:
    """Change a few bits."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(data: bytes, random: Random) -> bytes:
    """End too early."""
    return data[: random.randint(0, len(data))]


def delete(data: bytes, random: Random) -> bytes:
    """Leave a piece out."""
    start, end = piece(data, random)
    return data[:start] + data[end:]


def repeat(data: bytes, random: Random) -> bytes:
    """Have a piece there many times."""
    start, end = piece(data, random)
    return data[:end] + data[start:end] * random.choice((1, 2, 40)) + data[end:]


def move(data: bytes, random: Random) -> bytes:
    """Have a piece somewhere else."""
    start, end = piece(data, random)
    rest = data[:start] + data[end:]
    at = random.randint(0, len(rest))
    return rest[:at] + data[start:end] + rest[at:]


def insert(data: bytes, random: Random) -> bytes:
    """Put something in that parsers stumble over."""
    at = random.randint(0, len(data))
    return data[:at] + random.choice(TOKENS) + data[at:]


def overwrite(data: bytes, random: Random) -> bytes:
    """Put such a thing in the place of a piece."""
    start, end = piece(data, random)
    return data[:start] + random.choice(TOKENS) + data[end:]


def replace_number(data: bytes, random: Random) -> bytes:
    """Put a number of another kind in the place of one."""
    found = list(re.finditer(rb"[0-9]+", data))
    if not found:
        return data
    start, end = random.choice(found).span()
    return data[:start] + random.choice(NUMBERS) + data[end:]


def replace_value(data: bytes, random: Random) -> bytes:
    """Give another value to one place of the first JSON document in the input."""
    start = min((at for at in (data.find(b"{"), data.find(b"[")) if at >= 0), default=0)
    try:
        text = data[start:].decode()
        document, end = json.JSONDecoder().raw_decode(text)
        places = list(places_of(document))
        if not places:
            return data
        holder, key = random.choice(places)
        holder[key] = random.choice(VALUES)
        # With separators as they are: a hook's report has its own ending.
        changed = json.dumps(document) + text[end:]
    except (ValueError, RecursionError):
        return data
    return data[:start] + changed.encode(errors="surrogatepass")


def places_of(document: Any) -> Any:
    """Every place of a value in a JSON document: what holds it, and its key."""
    if isinstance(document, dict):
        keys: Sequence[Any] = list(document)
    elif isinstance(document, list):
        keys = range(len(document))
    else:
        return
    for key in keys:
        yield document, key
        yield from places_of(document[key])


def piece(data: bytes, random: Random) -> tuple[int, int]:
    """The start and end of a part of `data`, most often a short one."""
    start = random.randint(0, len(data))
    longest = min(len(data) - start, random.choice((4, 40, len(data))))
    return start, start + random.randint(0, longest)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    cut,
    delete,
    repeat,
    move,
    insert,
    overwrite,
    replace_number,
    replace_value,
    replace_value,
)


def mutated(seeds: Sequence[bytes], random: Random) -> bytes:
    """One of the seeds, or two of them spliced, with up to four things wrong."""
    data = random.choice(seeds)
    if random.randrange(8) == 0:
        other = random.choice(seeds)
        data = cut(data, random) + other[random.randint(0, len(other)) :]
    for _ in range(random.randint(1, 4)):
        data = random.choice(MUTATIONS)(data, random)
    return data
