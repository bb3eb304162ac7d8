"""``miglet.yaml(5)`` as reStructuredText, made from the schema.

``python docs/man/settings.py`` prints the page; the package's build makes the manual
page of it. What can be read from the schema stands nowhere else.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from miglet.config.docs import REFERENCE_HEAD, limits, required_mark, yaml_text
from miglet.config.schema import KEYS, SCHEMA, Key

HEAD = """\
===========
miglet.yaml
===========

-----------------------
configuration of MIGlet
-----------------------

:Manual section: 5
:Manual group: MIGlet

SYNOPSIS
========

``/etc/miglet/miglet.yaml``

DESCRIPTION
===========

The settings of ``miglet(8)``. As shipped, the file names every setting with its
default, all of them commented out. Without *pool_id*, *org_id*, *controller.endpoint*
and, outside a cloud, *vm_id*, from whichever source, MIGlet ends with exit status 78
and names what is missing. ``miglet check`` judges a configuration, ``miglet config``
prints the effective one.

"""

EXAMPLE = """
EXAMPLE
=======

::

    pool_id: pool-123
    org_id: org-789
    controller:
      endpoint: https://controller.example
      auth:
        token_path: /etc/miglet/token

FILES
=====

``/etc/miglet/miglet.yaml``
    The configuration.

``/etc/miglet/token``
    The controller's bearer token, unless *controller.auth.token_path* names another
    file. Owned by root, mode 0440, group ``miglet-net``, whose only members are the
    workers that talk to the controller.

SEE ALSO
========

``miglet(8)``, ``miglet-ctl(1)``
"""

CHANGES = """\
CHANGES AT RUN TIME
===================

*UpdateConfig* and a reload (SIGHUP) are judged in the same way, and applied whole or
not at all. A setting that is not said to *change at run time* takes effect with the
next start only; changing it while MIGlet runs is refused.

SETTINGS
========

"""

#: A heading of the reference page, whose sections become those of the manual page.
HEADING = re.compile(r"^(.+)\n(-+)$", re.MULTILINE)

#: A row of its table and the table's rules; a terminal has no room for columns.
ROW = re.compile(r"^([a-z].*?)  +(``.*)$", re.MULTILINE)
RULE = re.compile(r"^=+  =+\n", re.MULTILINE)


def page() -> str:
    """The text of the page."""
    settings = "\n".join(sections(SCHEMA, ""))
    return f"{HEAD}{general()}{CHANGES}{settings}{EXAMPLE}"


def general() -> str:
    """What the reference page says of settings in general."""
    start = REFERENCE_HEAD.index("Where settings come from\n")
    end = REFERENCE_HEAD.index("Changes at run time\n")
    text = HEADING.sub(_section, REFERENCE_HEAD[start:end])
    text = ROW.sub(r"* \1: \2", RULE.sub("", text))
    return text.replace("``docs/", "``/usr/share/doc/miglet/")


def _section(heading: re.Match[str]) -> str:
    return f"{heading[1].upper()}\n{'=' * len(heading[1])}"


def sections(section: dict[str, Any], prefix: str) -> Iterator[str]:
    """The settings of `section`, then a heading for each section below it."""
    for name, rules in section["properties"].items():
        if "properties" not in rules:
            yield from entry(KEYS[prefix + name])
    for name, rules in section["properties"].items():
        if "properties" in rules:
            title = prefix + name
            yield from ("", title, "-" * len(title), "", rules["description"], "")
            yield from sections(rules, f"{prefix}{name}.")


def entry(key: Key) -> Iterator[str]:
    """What the page says of `key`."""
    default = "" if key.required else f" Default: ``{yaml_text(key)}``."
    runtime = " May change at run time." if key.runtime else ""
    text = required_mark(key) + key.rules["description"]
    yield f"``{key.name}`` ({kind(key)})"
    yield f"    {text}{default}{runtime}"
    yield ""


def kind(key: Key) -> str:
    """Type and limits of `key`."""
    if "enum" in key.rules:
        words = [w if isinstance(w, str) else json.dumps(w) for w in key.rules["enum"]]
        return f"{', '.join(words[:-1])} or {words[-1]}"
    null = " or null" if key.nullable else ""
    return key.kind + null + limits(key)


if __name__ == "__main__":
    sys.stdout.write(page())
