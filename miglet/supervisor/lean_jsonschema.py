"""Imports jsonschema without what it brings along and no start needs.

The child that loads the configuration imports this first: the whole start waits for
that child.
"""

from __future__ import annotations

import contextlib
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from miglet.supervisor.lean_imports import (
    StandIns,
    empty_classes,
    import_without,
    lazy_module,
    real_module,
)

#: What checks formats of texts (``"format": "idn-email"``), which our schemas do not
#: name. jsonschema does without those that are not installed.
FORMATS = (
    *("fqdn", "idna", "isoduration", "jsonpointer", "rfc3339_validator"),
    *("rfc3986_validator", "rfc3987", "rfc3987_syntax", "uri_template", "webcolors"),
)


def type_variable(
    name: str, *constraints: Any, default: Any = None, **more: Any
) -> Any:
    """As `typing_extensions.TypeVar`; its default is for type checkers."""
    return typing.TypeVar(name, *constraints, **more)


#: Schemas that are fetched from elsewhere, in jsonschema before 4.18; and types.
UNUSED: StandIns = {
    **dict.fromkeys(FORMATS),
    "typing_extensions": lazy_module("typing_extensions", TypeVar=type_variable),
    "urllib.request": empty_classes("urllib.request"),
}


def no_signature(thing: object) -> Any:
    """As `inspect.signature`, but no function has one: ValueError, as for builtins.

    attrs asks for those of converters, to annotate what it makes; nobody reads that.
    """
    if isinstance(thing, types.FunctionType | types.BuiltinFunctionType):
        raise ValueError(f"no signature found for {thing!r}")
    return real_module("inspect").signature(thing)


class Parameter:
    """In place of `inspect.Parameter`, which pyrsistent imports and attrs compares."""

    empty = object()


@contextlib.contextmanager
def functions_without_signatures() -> Iterator[None]:
    """Spare the import of `inspect`, unless it has been imported."""
    inspect = sys.modules["inspect"]
    if inspect.__spec__ is not None:
        yield
        return
    contents = vars(inspect)
    before = dict(contents)
    contents.update(signature=no_signature, Parameter=Parameter)
    try:
        yield
    finally:
        contents.clear()
        contents.update(before)


with functions_without_signatures():
    import_without("jsonschema", UNUSED)
