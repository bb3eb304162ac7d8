"""``miglet/config/settings.py`` as the schema has it: one class a section.

``python -m miglet.config.typing_page`` prints it. Thus mypy sees every read of a
setting, and the schema stays the only place that names a key.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from miglet.config.schema import KEYS, SCHEMA, Key

HEAD = '''\
"""The effective configuration as typed values: ``settings.controller.timeout``.

Printed from schema.json by ``python -m miglet.config.typing_page``; do not edit it.
"""

# Without postponed annotations: `Section.of` reads the types.
from typing import Literal

from miglet.config.section import Section

'''

RUNTIME = """
#: The dotted keys that may change while MIGlet runs.
RUNTIME_KEYS = frozenset(
    {
"""

TYPES = {
    "duration": "float",
    "size": "int",
    "integer": "int",
    "boolean": "bool",
    "list": "tuple[str, ...]",
    "text": "str",
}


def page() -> str:
    """The text of the module."""
    runtime = [f'        "{key.name}",\n' for key in KEYS.values() if key.runtime]
    classes = "\n\n".join(classes_of(SCHEMA, "Settings", ""))
    return f"{HEAD}\n{classes}\n{RUNTIME}{''.join(runtime)}    }}\n)\n"


def classes_of(section: dict[str, Any], name: str, prefix: str) -> Iterator[str]:
    """The class of `section` after those that it refers to."""
    lines = []
    for each, rules in section["properties"].items():
        if "properties" in rules:
            yield from classes_of(rules, class_name(each), f"{prefix}{each}.")
            lines += [f"    {each}: {class_name(each)}"]
        else:
            lines += [*comment(rules["description"]), field(KEYS[prefix + each], each)]
    head = f"class {name}(Section):\n"
    yield head + f'    """{section["description"]}"""\n\n' + "\n".join(lines) + "\n"


def class_name(section: str) -> str:
    """E.g. ``RetrySettings``."""
    return section.capitalize() + "Settings"


def comment(text: str) -> list[str]:
    """`text` as a comment on the field below it."""
    return textwrap.wrap(
        text, 88, initial_indent="    #: ", subsequent_indent="    #: "
    )


def field(key: Key, name: str) -> str:
    """The declaration of `key`, in the formatter's style."""
    line = f"    {name}: {type_of(key)}"
    if len(line) <= 88:
        return line
    words = ",\n        ".join(map(literal, key.rules["enum"]))
    return f"    {name}: Literal[\n        {words},\n    ]"


def type_of(key: Key) -> str:
    """The Python type of its values."""
    if "enum" in key.rules:
        return f"Literal[{', '.join(map(literal, key.rules['enum']))}]"
    return TYPES[key.kind] + (" | None" if key.nullable else "")


def literal(value: object) -> str:
    """A word of a choice as source text."""
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    sys.stdout.write(page())
