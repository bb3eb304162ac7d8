"""Prints the OpenAPI document with the tables of answers as `answers.TABLE` has them.

``python -m miglet.controller.contract > miglet/controller/contract/openapi.json``,
from a copy of the file: the rest of the document is taken from it.
"""

from __future__ import annotations

import json
import sys

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
    return json.dumps(tree, indent=2) + "\n"


def table(call: Call) -> str:
    """The answers to one call as a Markdown table."""
    rows = (
        f"| {rule.status} | {rule.body.text if rule.body else 'any'}"
        f" | {rule.consequence} |"
        for rule in TABLE[call]
    )
    return "\n".join(("| status | body | MIGlet |", "|---|---|---|", *rows))


if __name__ == "__main__":
    sys.stdout.write(document())
