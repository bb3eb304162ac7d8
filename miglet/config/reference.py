"""``docs/configuration.rst``, made from the schema.

``python -m miglet.config.reference`` prints the page; it writes no file. What can be
read from the schema stands nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from miglet.config.docs import yaml_text
from miglet.config.schema import KEYS, SCHEMA, Key, duration_text, size_text

HEAD = """\
Configuration
=============

.. This page is printed by ``python -m miglet.config.reference``; do not edit it.

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
``MIGLET_AZURE_METADATA_ENDPOINT``, ``MIGLET_CLOUD``, ``MIGLET_CONFIG``,
``MIGLET_DMI_ROOT``, ``MIGLET_FAILPOINTS``, ``MIGLET_JOB_DIRECTORY`` and
``MIGLET_SOCKET`` are no settings.

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
start with exit status 78. Every mistake is named at once, each with its key, its
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


def page() -> str:
    """The text of the page."""
    return HEAD + "\n".join([*table(SCHEMA, ""), *sections(SCHEMA, "")]) + "\n"


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


if __name__ == "__main__":
    sys.stdout.write(page())
