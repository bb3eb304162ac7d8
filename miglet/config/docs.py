"""``etc/miglet.yaml`` as the schema has it: every setting, commented out.

``python -m miglet.config.docs`` prints it. ``#key`` is a setting with its default,
``# Text`` is for people; only the names of sections are not commented out.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from miglet.config.schema import KEYS, SCHEMA, TEXTS, Key

HEAD = """\
# Configuration of MIGlet. Every setting is here with its default; take the # before
# a setting away to change it. The three that say "Required." must be set, here or by
# the environment (MIGLET_POOL_ID), the machine's metadata (miglet-pool-id) or
# --set pool_id=...; see docs/configuration.rst.
"""


def page() -> str:
    """The text of the file."""
    return HEAD + "".join(f"{line}\n" for line in lines_below(SCHEMA))


def lines_below(
    section: dict[str, Any], prefix: str = "", indent: str = ""
) -> Iterator:
    """The lines of `section`, whose keys begin with `prefix`."""
    for name, rules in section["properties"].items():
        if "properties" not in rules:
            yield from setting_lines(KEYS[prefix + name], indent)
            continue
        yield ""
        yield from comment(rules["description"], indent)
        yield f"{indent}{name}:"
        yield from lines_below(rules, f"{prefix}{name}.", indent + "  ")


def setting_lines(key: Key, indent: str) -> Iterator[str]:
    """The comment and the setting itself."""
    yield ""
    yield from comment(required_mark(key) + key.rules["description"], indent)
    yield f"{indent}#{key.name.rpartition('.')[2]}: {yaml_text(key)}"


def comment(text: str, indent: str) -> list[str]:
    """`text` for people, in lines of at most 88 columns."""
    return textwrap.wrap(
        text, 88, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )


def required_mark(key: Key) -> str:
    """What must be said first of a key without a default."""
    if not key.required:
        return ""
    return "Required outside a cloud. " if key.name == "vm_id" else "Required. "


def yaml_text(key: Key) -> str:
    """The default of `key` as YAML, or its example where it has none."""
    value = key.rules["default"] if not key.required else key.rules["examples"][0]
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return TEXTS.get(key.kind, str)(value)


if __name__ == "__main__":
    sys.stdout.write(page())
