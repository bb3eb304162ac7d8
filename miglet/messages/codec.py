"""Facts that workers report and orders that the arbiter gives.

Facts go up and are named in the past tense; orders go down and are imperative. A
message is plain JSON on its way. The parent does not trust who wrote it: nothing is
unpickled, and every field is checked for its type, its range and the keys inside it, so
that a fact that was decoded can be used without another look.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, TypeVar, Union

from miglet.errors import BadMessage
from miglet.formats import DEEPEST, LATEST, is_printable_word, require_plain

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # typing has it from Python 3.11 on

    def dataclass_transform(**_: object) -> Any:
        return lambda declared: declared


AnyValue = TypeVar("AnyValue", bound="Value")

#: Most bytes of one message on a queue.
LIMIT = 64 * 1024

#: Integers are smaller in absolute value: SQLite stores 64 bits.
INTEGER_LIMIT = 2**63

#: Every kind of message by its name, filled as the classes below are defined.
MESSAGES: dict[str, type[Message]] = {}


class Value:
    """Base of the many small frozen dataclasses: construction, equality, repr.

    `dataclass` would compile five functions for every class anew: 20 kB of memory and
    0.4 ms of each start. These serve all classes that are declared with `frozen_value`.

    A field that is declared with `repr=False` is not shown: it may hold a secret.
    """

    def __init__(self, *positional: Any, **named: Any) -> None:
        kind, values = type(self), vars(self)
        names = kind.__match_args__  # type: ignore[attr-defined]  # the positional ones
        given = dict(zip(names, positional, strict=False))
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            if each.name in given:
                values[each.name] = given[each.name]
            elif each.name in named:
                values[each.name] = named.pop(each.name)
            elif each.default is not dataclasses.MISSING:
                values[each.name] = each.default
            elif each.default_factory is not dataclasses.MISSING:
                values[each.name] = each.default_factory()
            else:
                raise TypeError(f"{kind.__name__} needs a value for {each.name}")
        if named or len(positional) > len(names):
            surplus = ", ".join(named) or f"{len(positional)} values"
            raise TypeError(f"{kind.__name__} does not take {surplus}")

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields if f.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen_value(kind: type[AnyValue]) -> type[AnyValue]:
    """Make a subclass of `Value` a frozen dataclass with the methods of `Value`."""
    return dataclasses.dataclass(init=False, repr=False, eq=False)(kind)


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,)
)
def named_value(kind: type[AnyValue]) -> type[AnyValue]:
    """As `frozen_value`, with fields by keyword only: subclasses may require more."""
    declare = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=True)
    return declare(kind)


class Message(Value):
    """Base of what is sent over a queue: facts and orders."""

    #: Most bytes of one message of this kind.
    size_limit: ClassVar[int] = LIMIT

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if not abstract:
            MESSAGES[cls.__name__] = cls


class Fact(Message, abstract=True):
    """Something that has happened, reported to the arbiter."""

    #: What a fact of this kind costs its sender (`miglet.supervisor.queues.Budget`):
    #: much if it leads to an event, an order or a process.
    cost: ClassVar[int] = 1


class Order(Message, abstract=True):
    """Something that a worker is to do."""

    #: The worker that obeys it; empty for an order that every worker knows.
    to: ClassVar[str] = ""

    @property
    def is_replaceable(self) -> bool:
        """Whether the next order of this kind may take its place in the queue."""
        return False


class Range(NamedTuple):
    """Limits of a number, for use in `Annotated`."""

    least: float
    most: float

    def holds(self, value: Any) -> bool:
        """Whether `value` is within them."""
        return self.least <= value <= self.most


class Length(NamedTuple):
    """Most characters of a text, for use in `Annotated`."""

    most: int

    def holds(self, value: Any) -> bool:
        """Whether `value` is short enough."""
        return len(value) <= self.most


class Word(NamedTuple):
    """Most characters of one printable ASCII word, for use in `Annotated`."""

    most: int

    def holds(self, value: Any) -> bool:
        """Whether `value` is such a word."""
        return is_printable_word(value) and len(value) <= self.most


class Depth(NamedTuple):
    """How deep lists and objects may be nested, for use in `Annotated`."""

    most: int

    def holds(self, value: Any) -> bool:
        """Whether `value` is that flat; a list or object of plain values is 1 deep."""
        if not isinstance(value, dict | list):
            return True
        members = value.values() if isinstance(value, dict) else value
        inner = Depth(self.most - 1)
        return self.most > 0 and all(map(inner.holds, members))


class AtLeast(NamedTuple):
    """Least number of items of a list, for use in `Annotated`."""

    items: int

    def holds(self, value: Any) -> bool:
        """Whether `value` has that many."""
        return len(value) >= self.items


class OneOf(NamedTuple):
    """The texts that are allowed, for use in `Annotated`."""

    texts: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of them."""
        return value in self.texts


class Keys(NamedTuple):
    """The keys of an object and their types, for use in `Annotated`."""

    #: A TypedDict, or a dataclass, none of whose fields is required.
    kind: type
    #: Whether other keys are refused. Otherwise they are ignored: nobody reads them.
    closed: bool = False

    @property
    def required(self) -> frozenset[str]:
        """The keys that must be there."""
        return getattr(self.kind, "__required_keys__", frozenset())

    def holds(self, value: Any) -> bool:
        """Whether `value` has the required keys, and no known key a wrong value."""
        if not self.required <= value.keys():
            return False
        hints = _hints(self.kind)
        if self.closed and not value.keys() <= hints.keys():
            return False
        known = value.keys() & hints.keys()
        return all(_conforms(value[key], hints[key]) for key in known)


#: Wall time in seconds that RFC 3339 can express.
WallTime = Annotated[float, Range(0, LATEST)]

#: A duration of ten years at most.
Seconds = Annotated[float, Range(0, 315360000)]

#: The sequence number of an event.
SequenceNumber = Annotated[int, Range(0, 2**53)]

#: An exit status of a process.
ExitStatus = Annotated[int, Range(0, 255)]

#: An identifier.
Name = Annotated[str, Length(256)]


def encode(message: Message) -> bytes:
    """Serialize a message; raises BadMessage if it is too large."""
    kind = type(message)
    try:
        text = _ENCODER.encode([kind.__name__, vars(message)])
    except ValueError as error:
        raise BadMessage(f"{kind.__name__}: {error}") from None
    # Half of a surrogate pair, as in the name of a file, becomes a question mark.
    encoded = text.encode(errors="replace")
    if len(encoded) > kind.size_limit:
        raise BadMessage(f"{kind.__name__} has {len(encoded)} bytes")
    return encoded


def decode(encoded: bytes) -> Message:
    """Deserialize a message; raises BadMessage, which says what is wrong with it."""
    try:
        text = encoded.decode()
        name, fields = _DECODER.decode(text)
        kind = MESSAGES[name]
        # A look at each value takes time, and few messages need it.
        if "\\u" in text or text.count("{") + text.count("[") > DEEPEST:
            require_plain(fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadMessage(f"not a message: {error!r:.200}") from None
    if len(encoded) > kind.size_limit:
        raise BadMessage(f"{name} has {len(encoded)} bytes")
    return _construct(kind, fields)


def is_sendable(value: Any) -> bool:
    """Whether the JSON `value`, which may come from anywhere, can be sent in a message.

    The parent kills the sender of a fact that it refuses.
    """
    try:
        require_plain(_DECODER.decode(_ENCODER.encode(value)))
    except (ValueError, RecursionError):
        return False
    return True


def cache_order_types() -> None:
    """Cache the field types of all orders before a fork: every worker decodes orders.

    Facts are decoded by the parent alone, which looks their types up when they come.
    """
    for kind in MESSAGES.values():
        if issubclass(kind, Order):
            _hints(kind)  # type: ignore[arg-type]


def _construct(kind: type[Message], fields: Any) -> Message:
    expected = _hints(kind)  # type: ignore[arg-type]
    if not isinstance(fields, dict) or not fields.keys() <= expected.keys():
        raise BadMessage(f"{kind.__name__} does not have the fields {fields!r:.200}")
    for name, value in fields.items():
        if not _conforms(value, expected[name]):
            raise BadMessage(f"{kind.__name__}.{name} cannot be {value!r:.200}")
    try:
        return kind(**fields)
    except TypeError as error:
        raise BadMessage(str(error)) from None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The type of each field or key of `kind`, a message or a TypedDict."""
    hints = typing.get_type_hints(kind, include_extras=True)
    if typing.is_typeddict(kind):
        return hints
    names = [each.name for each in dataclasses.fields(kind)]
    return {name: hints[name] for name in names}


def _conforms(value: Any, hint: Any) -> bool:
    """Whether `value`, made by `json`, is what the type `hint` says."""
    if hint is Any:
        return True
    origin = typing.get_origin(hint) or hint
    arguments = typing.get_args(hint)
    if origin is Annotated:
        base, *limits = arguments
        return _conforms(value, base) and all(each.holds(value) for each in limits)
    if origin in (Union, types.UnionType):
        return any(_conforms(value, each) for each in arguments)
    if origin is float:
        return type(value) in (int, float)
    if type(value) is not origin:
        return False
    if origin is list and arguments:
        return all(_conforms(each, arguments[0]) for each in value)
    if origin is dict and arguments:
        return all(_conforms(each, arguments[1]) for each in value.values())
    return True


def _integer(digits: str) -> int:
    number = int(digits)
    if not -INTEGER_LIMIT < number < INTEGER_LIMIT:
        raise ValueError("a whole number that is too large")
    return number


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number that is too large")
    return number


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


#: Made once: `json.dumps` with separators makes one for each message.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)
_DECODER = json.JSONDecoder(
    parse_int=_integer, parse_float=_real, parse_constant=_refuse_constant
)
