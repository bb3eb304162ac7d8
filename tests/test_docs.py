"""What the documents say is so: states, packages, files, commands and settings."""

from __future__ import annotations

import importlib
import re
import textwrap
from pathlib import Path

import pytest
import yaml

from miglet import cli
from miglet.bootstrap.framework import CHECKS
from miglet.commands import registry  # noqa: F401 - its commands become rows
from miglet.config.schema import SCHEMA
from miglet.ctl import __main__ as ctl
from miglet.lifecycle.table import COMMANDS, leaves_to
from miglet.lifecycle.vm import State
from miglet.messages.events import EVENTS
from miglet.metrics.machine import METRICS
from miglet.metrics.prometheus import AGENT
from tests.paths import ROOT
from tests.test_fault_table import NAME as TEST_NAME
from tests.test_fault_table import defined
from tests.test_layers import APART, LAYERS

README = (ROOT / "README.rst").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.rst").read_text()

#: Every document that is written by hand or printed, the manual pages among them.
DOCUMENTS = [
    *(ROOT / name for name in ("README.rst", "CONTRIBUTING.rst")),
    *sorted({*(ROOT / "docs").rglob("*.rst")} - {*(ROOT / "docs/reference").glob("*")}),
]

#: A file of this repository between double backquotes.
FILE = re.compile(
    r"``((?:miglet|tests|docs|etc|debian|\.github|\.ci)/[\w./*-]*|[A-Z]+\.rst)(?:::\w+)?``"
)

#: Files of a user's repository, and pages that are printed when the site is built.
ELSEWHERE = {
    ".github/workflows/first.yml",
    "docs/reference",
    "docs/man/miglet.yaml.5.rst",
}

#: A literal block, or a block of code: the lines after it that are indented or empty.
BLOCK = re.compile(r"(?:::|code-block:: \w+)\n((?:\n|[ \t]+\S.*\n)+)")

#: A document that a shell command writes.
HERE_DOCUMENT = re.compile(r"<<-?EOF\n(.*?)\n\s*EOF", re.DOTALL)

#: What a machine has besides the settings that an example shows.
COMPLETE = (
    "pool_id=pool",
    "vm_id=vm",
    "org_id=org",
    "controller.endpoint=https://controller.example",
)


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


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


def documented_layers() -> list[set[str]]:
    """The picture of the packages, the lowest layer first."""
    rows = re.findall(r"^ +(\d)  ([a-z ]+)$", ARCHITECTURE, re.MULTILINE)
    return [set(names.split()) for _, names in sorted(rows)]


def blocks(text: str) -> list[str]:
    """The literal blocks of a document, and the documents written by commands there."""
    found = [textwrap.dedent(block) for block in BLOCK.findall(text)]
    return found + [
        textwrap.dedent(inner)
        for each in found
        for inner in HERE_DOCUMENT.findall(each)
    ]


def settings_in(text: str) -> list[str]:
    """The blocks that are settings of MIGlet."""
    found = []
    for block in blocks(text):
        try:
            value = yaml.safe_load(block)
        except yaml.YAMLError:
            continue
        if isinstance(value, dict) and value.keys() & SCHEMA["properties"].keys():
            found.append(block)
    return found


EXAMPLES = [
    pytest.param(block, id=f"{name_of(document)}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(settings_in(document.read_text()), 1)
]


def test_the_documented_state_table_is_the_table():
    table = {
        state.value: {each.value for each in leaves_to(state)} - {state.value}
        for state in State
    }
    assert documented_edges() == table


def test_the_picture_of_the_packages_is_the_layer_tests():
    assert documented_layers() == LAYERS
    [apart] = re.findall(r"^ +apart: ([a-z ]+)$", ARCHITECTURE, re.MULTILINE)
    assert set(apart.split()) == set(APART)


def test_the_readme_names_every_state_event_and_command():
    for state in State:
        assert f"``{state.value}``" in README
    for event in EVENTS:
        assert f"``{event}``" in README
    for command in COMMANDS.values():
        assert f"``{command.name}``" in README


def test_the_reference_has_everything_that_it_is_printed_from(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    printer = importlib.import_module("reference_pages")
    printer.write(tmp_path)
    for page, names in {
        "events": EVENTS,
        "commands": [each.name for each in COMMANDS.values()],
        "metrics": [*METRICS, *(series.name for series in AGENT)],
        "checks": CHECKS,
        "command_line": [*cli.SUBCOMMANDS, *ctl.SUBCOMMANDS],
    }.items():
        text = (tmp_path / f"{page}.rst").read_text()
        assert names and [name for name in names if name not in text] == [], page


def test_the_readme_shows_the_two_commands():
    assert "make demo" in README
    assert "make test" in README


@every_document
def test_every_file_that_is_named_exists(document):
    names = set(FILE.findall(document.read_text())) - ELSEWHERE
    assert [name for name in names if not any(ROOT.glob(name.rstrip("/")))] == []


@every_document
def test_every_test_that_is_named_exists(document):
    named = set(TEST_NAME.findall(document.read_text()))
    missing = [
        f"{file}::{name}" for file, name in named if name not in defined(ROOT / file)
    ]
    assert missing == []


@every_document
def test_every_make_target_that_is_named_exists(document):
    named = set(re.findall(r"(?:``|^ +)make ([a-z-]+)", document.read_text(), re.M))
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    assert named - set(targets) == set()


@every_document
def test_every_module_that_is_run_can_be_run(document):
    named = re.findall(r"python3? -m (miglet[.\w]*|tests[.\w]*)", document.read_text())
    files = {ROOT / f"{name.replace('.', '/')}" for name in named}
    runnable = [file.with_suffix(".py") for file in files]
    runnable += [file / "__main__.py" for file in files]
    assert len([file for file in runnable if file.exists()]) == len(files)


@every_document
def test_every_subcommand_that_is_named_exists(document):
    text = document.read_text()
    asked = set(re.findall(r"(?:``|^ +)miglet-ctl ([a-z][a-z-]*)", text, re.M))
    assert asked - ctl.SUBCOMMANDS.keys() == set()
    called = set(re.findall(r"(?:``|^ +)miglet ([a-z][a-z-]*)", text, re.M))
    assert called - cli.SUBCOMMANDS.keys() == set()


@pytest.mark.parametrize("block", EXAMPLES)
def test_every_example_of_settings_is_valid(block, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MIGLET_CLOUD", "none")
    file = tmp_path / "miglet.yaml"
    file.write_text(block)
    given = yaml.safe_load(block)
    lacking = [
        argument
        for setting in COMPLETE
        for argument in ("--set", setting)
        if not has(given, setting.partition("=")[0])
    ]
    status = cli.main(["--config", str(file), *lacking, "config"])
    assert (status, capsys.readouterr().err) == (0, "")


def has(settings: dict, key: str) -> bool:
    """Whether a document names the dotted key."""
    head, _, rest = key.partition(".")
    return key in settings or bool(
        rest and isinstance(settings.get(head), dict) and has(settings[head], rest)
    )


def test_the_examples_are_found():
    assert len(EXAMPLES) >= 3
