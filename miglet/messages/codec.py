"""Facts that workers report and orders that the arbiter gives.

Facts go up and are told in the past tense; orders go down and are imperative. A
message is plain JSON on its way: an unprivileged worker may write to a privileged
parent, so nothing is unpickled and every field is checked against its type.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import types
import typing
from typing import Any, ClassVar, Union

from miglet.errors import BadMessage
from miglet.messages.values import Value

#: Most bytes of one message on a queue.
LIMIT = 64 * 1024

#: Every kind of message by its name, filled as the classes below are defined.
MESSAGES: dict[str, type[Message]] = {}

#: What `json` makes of a document.
JSON_TYPES = frozenset({bool, int, float, str, list, dict, type(None)})

#: Made once: `json.dumps` with separators makes one for each message.
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_DECODER = json.JSONDecoder()


class Message(Value):
    """What goes over a queue; only the subclasses of Fact and Order are sent."""

    def __init_subclass__(cls) -> None:
        MESSAGES[cls.__name__] = cls


class Fact(Message):
    """Something that has happened, told to the arbiter."""


class Order(Message):
    """Something that a worker is to do."""

    #: The worker that obeys it; empty for an order that every worker knows.
    to: ClassVar[str] = ""


def encode(message: Message) -> bytes:
    """The bytes of `message` on a queue; BadMessage if they are more than LIMIT."""
    encoded = _ENCODER.encode([type(message).__name__, vars(message)]).encode()
    if len(encoded) > LIMIT:
        raise BadMessage(f"{type(message).__name__} has {len(encoded)} bytes")
    return encoded


def decode(encoded: bytes) -> Message:
    """The message in `encoded`; BadMessage says what is wrong with it."""
    try:
        name, fields = _DECODER.decode(encoded.decode())
        kind = MESSAGES[name]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadMessage(f"not a message: {error!r}") from None
    return _made(kind, fields)


def learn_types() -> None:
    """Look up every field's types now, before a fork: afterwards they are shared."""
    for kind in MESSAGES.values():
        if dataclasses.is_dataclass(kind):
            _types(kind)


def _made(kind: type[Message], fields: Any) -> Message:
    expected = _types(kind)  # type: ignore[arg-type]
    if not isinstance(fields, dict) or not fields.keys() <= expected.keys():
        raise BadMessage(f"{kind.__name__} does not have the fields {fields!r:.200}")
    for name, value in fields.items():
        if type(value) not in expected[name]:
            raise BadMessage(f"{kind.__name__}.{name} cannot be {value!r:.200}")
    try:
        return kind(**fields)
    except TypeError as error:
        raise BadMessage(str(error)) from None


@functools.cache
def _types(kind: type[Message]) -> dict[str, frozenset[Any]]:
    """What `json` may make of each field of `kind`."""
    hints = typing.get_type_hints(kind)
    names = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return {name: _json_types(hints[name]) for name in names}


def _json_types(hint: Any) -> frozenset[Any]:
    origin = typing.get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        each = (_json_types(part) for part in typing.get_args(hint))
        return frozenset(itertools.chain.from_iterable(each))
    if origin is Any:
        return JSON_TYPES
    return frozenset({int, float} if origin is float else {origin})
