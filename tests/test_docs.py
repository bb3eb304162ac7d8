"""What the documents say of the machine is what the code does."""

from __future__ import annotations

import re

from miglet.commands import registry  # noqa: F401 - its commands become rows
from miglet.lifecycle.table import COMMANDS, leaves_to
from miglet.lifecycle.vm import State
from miglet.messages.events import EVENTS
from tests.paths import ROOT

README = (ROOT / "README.rst").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.rst").read_text()


def documented_edges() -> dict[str, set[str]]:
    """The state table of the document: two columns, `\\` goes on with the last row."""
    table = ARCHITECTURE.split("leads to\n", 1)[1].split("\n\n", 1)[0]
    edges: dict[str, set[str]] = {}
    state = ""
    for line in table.splitlines():
        if line.startswith("="):
            continue
        name, _, to = line.partition(" ")
        state = state if name == "\\" else name
        names = re.findall(r"[a-z_]+", to.replace("the end", ""))
        edges.setdefault(state, set()).update(names)
    return edges


def test_the_documented_state_table_is_the_table():
    table = {
        state.value: {each.value for each in leaves_to(state)} - {state.value}
        for state in State
    }
    assert documented_edges() == table


def test_the_readme_names_every_state_event_and_command():
    for state in State:
        assert f"``{state.value}``" in README
    for event in EVENTS:
        assert f"``{event}``" in README
    for command in COMMANDS.values():
        assert f"``{command.name}``" in README


def test_the_readme_shows_the_two_commands():
    assert "make demo" in README
    assert "make test" in README
