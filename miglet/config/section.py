"""What every group of settings can do; the groups themselves are in ``settings``.

The parent process imports this and must stay small, so only the standard library
is used; YAML and JSON Schema belong to ``load``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from miglet.errors import MigletError

Self = TypeVar("Self", bound="Section")


class MalformedSettings(MigletError):
    """A mapping is not a complete set of settings of the declared types.

    Settings are validated against the schema where they are loaded; this guards the
    places where they cross from one process to another.
    """


class Section:
    """A group of settings, immutable and read by attribute.

    The fields are the annotations of the subclass; `of` is the only constructor.
    Durations are float seconds, sizes int bytes, lists tuples. Not a dataclass: making
    twelve of them would delay each start by 7 ms.
    """

    @classmethod
    def of(cls: type[Self], mapping: Mapping[str, Any]) -> Self:
        """Settings from nested mappings, dotted keys or a mixture of both.

        Raises MalformedSettings that names the key if one is missing, unknown or of
        another type.
        """
        given = nested(mapping)
        settings = cls()
        for name, declared in cls.__annotations__.items():
            value = converted(given.pop(name, MISSING), declared, name)
            vars(settings)[name] = value
        if given:
            raise MalformedSettings(f"{next(iter(given))}: is not a setting")
        return settings

    def as_dict(self) -> dict[str, Any]:
        """Nested dicts and lists, fit for JSON and for `of`."""
        return {
            name: value.as_dict() if isinstance(value, Section) else thawed(value)
            for name, value in vars(self).items()
        }

    def flat(self, prefix: str = "") -> dict[str, Any]:
        """Dotted key to value in the order of the schema, lists as lists."""
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Section):
                values |= value.flat(f"{prefix}{name}.")
            else:
                values[prefix + name] = thawed(value)
        return values

    def replaced(self: Self, changes: Mapping[str, Any]) -> Self:
        """The same settings with the values of `changes` (dotted keys) in place."""
        return type(self).of({**self.flat(), **changes})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"settings do not change: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"settings do not change: {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __iter__(self) -> Iterator[str]:
        """The dotted keys, in the order of the schema."""
        return iter(self.flat())

    def __repr__(self) -> str:
        # Values stay out of it: a traceback must not show a proxy's password.
        return f"<{type(self).__name__}>"


#: Stands for a value that a mapping does not have.
MISSING: Any = object()


def converted(value: Any, declared: Any, name: str) -> Any:
    """`value` as the declared type has it; MalformedSettings names `name`."""
    if value is MISSING:
        raise MalformedSettings(f"{name}: is missing")
    if isinstance(declared, type) and issubclass(declared, Section):
        return section_of(value, declared, name)
    if get_origin(declared) is tuple and isinstance(value, (list, tuple)):
        value = tuple(value)
    elif declared is float and type(value) is int:
        value = float(value)
    if not conforms(value, declared):
        raise MalformedSettings(f"{name}: has a value of a wrong type")
    return value


def section_of(value: Any, declared: type[Self], name: str) -> Self:
    """The section that `value` describes; errors name its keys in full."""
    if not isinstance(value, Mapping):
        raise MalformedSettings(f"{name}: is not a section")
    try:
        return declared.of(value)
    except MalformedSettings as error:
        raise MalformedSettings(f"{name}.{error}") from None


def conforms(value: Any, declared: Any) -> bool:
    """Whether `value` is of the declared type, which is a class, tuple or choice."""
    if declared is None:
        return value is None
    origin, members = get_origin(declared), get_args(declared)
    if origin is UnionType:
        return any(conforms(value, each) for each in members)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in members)
    if origin is tuple:
        return isinstance(value, tuple) and all(
            conforms(each, members[0]) for each in value
        )
    if declared is float:
        return type(value) is float and math.isfinite(value)
    return type(value) is declared


def nested(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with its dotted keys spread into sections, one level deep."""
    spread: dict[str, Any] = {}
    for key, value in mapping.items():
        name, _, rest = key.partition(".")
        if not rest and not isinstance(value, Mapping):
            spread[name] = value
            continue
        section = spread.setdefault(name, {})
        if not isinstance(section, dict):
            raise MalformedSettings(f"{key}: {name} is given as a value, too")
        section.update({rest: value} if rest else value)
    return spread


def thawed(value: Any) -> Any:
    """`value`, a tuple as a list."""
    return list(value) if isinstance(value, tuple) else value
