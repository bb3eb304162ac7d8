"""The contract between agent and controller, as files: OpenAPI 3.1 and JSON Schemas.

The files are the one source: the agent's tests, the reference controller and its
tests all read them here. Each schema is draft 7 and refers to nothing outside itself.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

#: The name of every schema, e.g. ``event`` or ``command-Drain``.
SCHEMAS = tuple(sorted(path.stem for path in FOLDER.glob("schemas/*.json")))

#: How the names of the schemas of parameters begin, unlike ``command-request``.
PARAMETERS = tuple(f"command-{letter}" for letter in string.ascii_uppercase)

#: The wire name of every command; its parameters' schema is ``command-NAME``.
COMMANDS = tuple(
    name.removeprefix("command-") for name in SCHEMAS if name.startswith(PARAMETERS)
)


def schema(name: str) -> dict[str, Any]:
    """The schema `name`, read anew; a LookupError for a name not in SCHEMAS."""
    if name not in SCHEMAS:
        raise LookupError(f"no schema {name!r}; there are {', '.join(SCHEMAS)}")
    return _read(f"schemas/{name}.json")


def openapi() -> dict[str, Any]:
    """The OpenAPI document; its bodies refer to ``schemas/NAME.json`` beside it."""
    return _read("openapi.json")


def _read(path: str) -> dict[str, Any]:
    return json.loads((FOLDER / path).read_text(encoding="utf-8"))
