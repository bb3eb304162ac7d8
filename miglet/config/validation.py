"""Typed values against the JSON Schema, with faults in plain words.

jsonschema finds what is wrong; what people read is written here, because its own
messages repeat values (also secret ones) and speak of schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jsonschema

from miglet.config.schema import (
    KEYS,
    SCHEMA,
    Key,
    duration_text,
    expected,
    found,
    size_text,
    suggestion,
)
from miglet.config.section import nested
from miglet.errors import Fault

VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

#: Source of a value that no source gives.
NOWHERE = "not set"


def schema_faults(flat: Mapping[str, Any], sources: Mapping[str, str]) -> list[Fault]:
    """What the schema says against `flat`; missing keys are ``missing_faults``."""
    faults: dict[str, Fault] = {}
    for error in VALIDATOR.iter_errors(tree(flat)):
        if error.validator == "required":
            continue
        names = [part for part in error.absolute_path if isinstance(part, str)]
        key = KEYS[".".join(names)]
        reason, hint = complaint(key, error)
        # One fault a key: a value that is too long may break its pattern as well.
        faults.setdefault(key.name, Fault(key.name, sources[key.name], reason, hint))
    return list(faults.values())


def tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`flat` with its dotted keys as nested objects."""
    return {
        name: tree(value) if isinstance(value, Mapping) else value
        for name, value in nested(flat).items()
    }


def complaint(key: Key, error: jsonschema.ValidationError) -> tuple[str, str]:
    """Reason and hint for one finding of jsonschema."""
    was, allowed = found(key, error.instance), cast(Any, error.validator_value)
    if error.validator == "enum":
        words = ", ".join(allowed)
        hint = suggestion(str(error.instance), allowed)
        return f"expected one of {words}; found {was}", hint
    if error.validator in ("minimum", "maximum"):
        word = "at least" if error.validator == "minimum" else "at most"
        limit, value = (
            quantity(key, allowed),
            quantity(key, error.instance),
        )
        return f"must be {word} {limit}, found {value}", ""
    if error.validator == "uniqueItems":
        return "has the same member twice", ""
    if error.validator == "maxItems":
        return f"has more than {allowed} members", ""
    return f"expected {expected(key)}, found {was}", ""


def quantity(key: Key, value: Any) -> str:
    """A number in the unit of `key`."""
    if key.kind == "duration":
        return duration_text(value)
    return size_text(value) if key.kind == "size" else str(value)


def missing_faults(flat: Mapping[str, Any]) -> list[Fault]:
    """The required keys that no source gives."""
    return [
        missing(key) for key in KEYS.values() if key.required and key.name not in flat
    ]


def missing(key: Key) -> Fault:
    """The fault of a required key, with the ways to set it."""
    example = key.rules["examples"][0]
    hint = (
        f"set it in the file ({key.name}: {example}), as {key.environment_name} "
        f"or as metadata attribute {key.attribute_name}"
    )
    return Fault(key.name, NOWHERE, f"is required: {key.rules['description']}", hint)
