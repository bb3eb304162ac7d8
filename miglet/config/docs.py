"""Files that are printed from the schema, so that it alone names a key.

``python -m miglet.config.docs example FILE`` writes ``etc/miglet.yaml``, ``reference``
``docs/configuration.rst``, and ``settings`` the typed ``miglet/config/settings.py``.
Without FILE it prints. A file is written when its whole text is known: a mistake in the
schema leaves it as it was.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from miglet.config.schema import KEYS, SCHEMA, TEXTS, Key, duration_text, size_text

EXAMPLE_HEAD = """\
# Configuration of MIGlet. Every setting is here with its default; take the # before
# a setting away to change it. The three that say "Required." must be set, here or by
# the environment (MIGLET_POOL_ID), the machine's metadata (miglet-pool-id) or
# --set pool_id=...; see docs/configuration.rst.
"""


def example_page() -> str:
    """The text of the file."""
    return EXAMPLE_HEAD + "".join(f"{line}\n" for line in lines_below(SCHEMA))


def lines_below(
    section: dict[str, Any], prefix: str = "", indent: str = ""
) -> Iterator[str]:
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


REFERENCE_HEAD = """\
Configuration
=============

.. This page is printed by ``python -m miglet.config.docs reference``; do not edit it.

Where settings come from
------------------------

The first source that names a key decides its value:

1. ``UpdateConfig`` of the controller, while MIGlet runs;
2. the command line: ``--set controller.timeout=10s``, once for each key;
3. the machine's metadata;
4. the environment: ``MIGLET_*``;
5. the file: ``--config``, else ``MIGLET_CONFIG``, else ``/etc/miglet/miglet.yaml``;
6. the default.

A key has the same name everywhere:

====================  ==========================================
the file              ``controller.retry.max_attempts``, or nested
the command line      ``controller.retry.max_attempts``
the environment       ``MIGLET_CONTROLLER_RETRY_MAX_ATTEMPTS``
a metadata attribute  ``miglet-controller-retry-max-attempts``
====================  ==========================================

The metadata attribute ``miglet-config`` holds a whole YAML document; a single
attribute goes before it. ``docs/metadata.rst`` says what else metadata may hold.
``MIGLET_CLOUD``, ``MIGLET_CONFIG``, ``MIGLET_DMI_ROOT``, ``MIGLET_FAILPOINTS``,
``MIGLET_JOB_DIRECTORY``, ``MIGLET_SOCKET`` and what ends in ``_METADATA_ENDPOINT``
are no settings.

``miglet config`` prints each effective value, its source and what it overrode.

How values are written
----------------------

The same way in every source:

* **duration**: ``200ms``, ``30s``, ``5m``, ``1h30m``, or a number of seconds.
* **size**: ``5GB``, ``512MiB``, ``100kB``, or a number of bytes. ``kB``, ``MB``,
  ``GB``, ``TB`` count in thousands, ``KiB``, ``MiB``, ``GiB``, ``TiB`` in 1024s.
* **boolean**: ``true``, ``yes``, ``on``, ``1`` or ``false``, ``no``, ``off``, ``0``.
* **list**: a YAML list, or text with commas. Empty text is an empty list.
* **null**: ``null`` or empty text, where a setting may be without a value.

In YAML a value means what it says: ``off`` is the text ``off`` where text is wanted,
``0123`` keeps its zero. Aliases, tags, duplicate keys and files larger than 1 MiB are
refused.

Mistakes
--------

An unknown key, a value that cannot be, or settings that do not go together end the
start with exit status 78. All mistakes are named together, each with its key, its
source, what was found and what was expected. Only the value that decides is judged:
a wrong one that a higher source overrides does no harm.

Changes at run time
-------------------

``UpdateConfig`` and a reload (SIGHUP) are judged in the same way, and applied whole or
not at all. A key without *yes* under "Run time" takes effect with the next start only;
changing it while MIGlet runs is refused.

Settings
--------
"""

COLUMNS = ("Key", "Type", "Default", "Run time", "Meaning")


def reference_page() -> str:
    """The text of the page."""
    return (
        REFERENCE_HEAD + "\n".join([*table(SCHEMA, ""), *sections(SCHEMA, "")]) + "\n"
    )


def sections(section: dict[str, Any], prefix: str) -> Iterator[str]:
    """A heading and a table for each section below `section`."""
    for name, rules in section["properties"].items():
        if "properties" in rules:
            title = f"``{prefix}{name}``"
            yield from ("", title, "~" * len(title), "", rules["description"])
            yield from table(rules, f"{prefix}{name}.")
            yield from sections(rules, f"{prefix}{name}.")


def table(section: dict[str, Any], prefix: str) -> Iterator[str]:
    """The settings right in `section`."""
    yield from ("", ".. list-table::", "   :header-rows: 1", "")
    yield from row(COLUMNS)
    for name, rules in section["properties"].items():
        if "properties" not in rules:
            yield from row(cells(KEYS[prefix + name]))


def row(texts: tuple[str, ...]) -> Iterator[str]:
    """One row of a list-table."""
    for number, text in enumerate(texts):
        yield f"   {'-' if number else '* -'} {text}".replace("   -", "     -", 1)


def cells(key: Key) -> tuple[str, ...]:
    """What the page says of `key`."""
    default = "*required*" if key.required else f"``{yaml_text(key)}``"
    runtime = "yes" if key.runtime else "no"
    return f"``{key.name}``", kind(key), default, runtime, key.rules["description"]


def kind(key: Key) -> str:
    """Type and limits of `key`."""
    if "enum" in key.rules:
        return " | ".join(f"``{str(word).lower()}``" for word in key.rules["enum"])
    null = " or null" if key.nullable else ""
    return key.kind + null + limits(key)


def limits(key: Key) -> str:
    """The least and the greatest value, or what a text must look like."""
    if "minimum" in key.rules:
        text = {"duration": duration_text, "size": size_text}.get(key.kind, str)
        return f", {text(key.rules['minimum'])} to {text(key.rules['maximum'])}"
    return f": {key.rules['x-expected']}" if "x-expected" in key.rules else ""


SETTINGS_HEAD = '''\
"""The effective configuration as typed values: ``settings.controller.timeout``.

Printed from schema.json by ``python -m miglet.config.docs settings``; do not edit it.
"""

# Without postponed annotations: `Section.of` reads the types.
from typing import Literal

from miglet.config.section import Section

'''

RUNTIME_HEAD = """
#: The dotted keys that may change while MIGlet runs.
RUNTIME_KEYS = frozenset(
    {
"""

LIMITS_HEAD = """
#: The least and the greatest value of those of them that are numbers.
RUNTIME_LIMITS = {
"""

TYPES = {
    "duration": "float",
    "size": "int",
    "integer": "int",
    "boolean": "bool",
    "list": "tuple[str, ...]",
    "text": "str",
}


def settings_module() -> str:
    """The text of the module."""
    runtime = [key for key in KEYS.values() if key.runtime]
    keys = [f'        "{key.name}",\n' for key in runtime]
    ranges = [
        f'    "{key.name}": ({key.rules["minimum"]}, {key.rules["maximum"]}),\n'
        for key in runtime
        if "minimum" in key.rules
    ]
    classes = "\n\n".join(classes_of(SCHEMA, "Settings", ""))
    names = f"{RUNTIME_HEAD}{''.join(keys)}    }}\n)\n"
    return f"{SETTINGS_HEAD}\n{classes}\n{names}{LIMITS_HEAD}{''.join(ranges)}}}\n"


def classes_of(section: dict[str, Any], name: str, prefix: str) -> Iterator[str]:
    """The class of `section` after those that it refers to."""
    lines = []
    for each, rules in section["properties"].items():
        if "properties" in rules:
            yield from classes_of(rules, class_name(each), f"{prefix}{each}.")
            lines += [f"    {each}: {class_name(each)}"]
        else:
            comment = "    #: "
            lines += textwrap.wrap(
                rules["description"],
                88,
                initial_indent=comment,
                subsequent_indent=comment,
            )
            lines += [field(KEYS[prefix + each], each)]
    head = f"class {name}(Section):\n"
    yield head + f'    """{section["description"]}"""\n\n' + "\n".join(lines) + "\n"


def class_name(section: str) -> str:
    """E.g. ``RetrySettings``."""
    return section.capitalize() + "Settings"


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


PAGES = {
    "example": example_page,
    "reference": reference_page,
    "settings": settings_module,
}

USAGE = f"usage: python -m miglet.config.docs {'|'.join(PAGES)} [FILE]"


def main(words: list[str]) -> None:
    """Print a page, or write it into the file that is named."""
    page, *files = words or [""]
    if page not in PAGES or len(files) > 1:
        sys.exit(USAGE)
    text = PAGES[page]()
    if files:
        Path(files[0]).write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
