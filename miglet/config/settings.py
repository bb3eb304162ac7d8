"""The effective configuration as a value: read by attribute, never changed.

The parent process imports this and must stay small, so only the standard library
is used; YAML and JSON Schema belong to ``loading``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Settings:
    """Settings by name: ``settings.controller.retry.max_attempts``.

    A section is a Settings too. Durations are float seconds, sizes int bytes, lists
    tuples. ``settings["controller.timeout"]`` takes the dotted key.
    """

    __slots__ = ("_place", "_values")

    _place: str
    _values: dict[str, Any]

    def __init__(self, values: dict[str, Any], place: str = "") -> None:
        object.__setattr__(self, "_place", place)
        object.__setattr__(self, "_values", values)

    @classmethod
    def of(cls, mapping: Mapping[str, Any], place: str = "") -> Settings:
        """Settings from nested mappings, dotted keys or a mixture of both."""
        values = {
            name: cls.of(value, f"{place}{name}.")
            if isinstance(value, Mapping)
            else frozen(value)
            for name, value in nested(mapping).items()
        }
        return cls(values, place)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"no setting is called {self._key(name)}")
        return self._values[name]

    def __getitem__(self, key: str) -> Any:
        name, _, rest = key.partition(".")
        if name not in self._values:
            raise KeyError(self._key(key))
        return self._values[name][rest] if rest else self._values[name]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings do not change: {self._key(name)}")

    def __iter__(self) -> Iterator[str]:
        """The dotted keys, in the order of the schema."""
        for name, value in self._values.items():
            if isinstance(value, Settings):
                yield from (f"{name}.{key}" for key in value)
            else:
                yield name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Settings):
            return NotImplemented
        return self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple((key, self[key]) for key in sorted(self)))

    def __repr__(self) -> str:
        # Values stay out of it: a traceback must not show a proxy's password.
        return f"<Settings {self._place}* of {len(self._values)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings.of, (self.as_dict(), self._place)

    def as_dict(self) -> dict[str, Any]:
        """Nested dicts and lists, fit for JSON and for ``of``."""
        return {
            name: value.as_dict() if isinstance(value, Settings) else thawed(value)
            for name, value in self._values.items()
        }

    def flat(self) -> dict[str, Any]:
        """Dotted key to value, lists as lists."""
        return {key: thawed(self[key]) for key in self}

    def replaced(self, flat: Mapping[str, Any]) -> Settings:
        """The same settings with the values of `flat` (dotted keys) in place."""
        return Settings.of({**self.flat(), **flat}, self._place)

    def _key(self, name: str) -> str:
        return self._place + name


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


def nested(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with its dotted keys spread into sections, one level deep."""
    spread: dict[str, Any] = {}
    for key, value in mapping.items():
        name, _, rest = key.partition(".")
        if rest or isinstance(value, Mapping):
            spread.setdefault(name, {}).update({rest: value} if rest else value)
        else:
            spread[name] = value
    return spread


def frozen(value: Any) -> Any:
    """`value`, a list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def thawed(value: Any) -> Any:
    """`value`, a tuple as a list."""
    return list(value) if isinstance(value, tuple) else value
