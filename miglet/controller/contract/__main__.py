"""Prints the OpenAPI document with what is derived: tables of answers, and commands.

``python -m miglet.controller.contract miglet/controller/contract/openapi.json`` writes
into the file: the tables are those of `answers.TABLE`, the commands those that have a
schema, and the rest is taken from the file itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from miglet.controller import contract
from miglet.controller.answers import TABLE, Call

#: What begins the generated end of an operation's description.
INTRODUCTION = (
    "\n\nWhat MIGlet makes of an answer; the first row that applies decides. A failed"
    " connection, a cut answer and one that takes too long are repeated like 5xx.\n\n"
)


def document() -> str:
    """The whole document as text."""
    tree = contract.openapi()
    for call in Call:
        path = f"/api/v1/vms/{{vm_id}}/{call.path}"
        operation = tree["paths"][path][call.method.lower()]
        own, _, _ = operation["description"].partition(INTRODUCTION)
        operation["description"] = own + INTRODUCTION + table(call)
    tree["paths"]["/api/v1/vms/{vm_id}/commands"]["post"]["description"] = commands()
    return json.dumps(tree, indent=2) + "\n"


def commands() -> str:
    """What is said of the operation that queues a command."""
    files = ", ".join(f"schemas/command-{name}.json" for name in contract.COMMANDS)
    return (
        "Types are matched without regard to case and underscores. Parameters are held"
        f" against the schema of the type: {files}. At most 64 KiB."
    )


def table(call: Call) -> str:
    """The answers to one call as a Markdown table."""
    rows = (
        f"| {rule.status} | {rule.body.text if rule.body else 'any'}"
        f" | {rule.consequence} |"
        for rule in TABLE[call]
    )
    return "\n".join(("| status | body | MIGlet |", "|---|---|---|", *rows))


if __name__ == "__main__":
    text = document()
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
