"""What the documents say is so: states, packages, files, commands and settings."""

from __future__ import annotations

import importlib
import re
from xml.etree import ElementTree

import pytest

import miglet.bootstrap.preflight  # noqa: F401  # registers the checks
from miglet import arguments
from miglet.bootstrap.framework import CHECKS
from miglet.commands import registry  # noqa: F401 - its commands become rows
from miglet.controller import contract
from miglet.ctl import __main__ as ctl
from miglet.lifecycle.table import COMMANDS, leaves_to
from miglet.lifecycle.vm import State
from miglet.messages.events import EVENTS
from miglet.metrics.machine import METRICS
from miglet.metrics.prometheus import AGENT
from tests.cases import check_each
from tests.documents import DOCUMENTS
from tests.paths import ROOT
from tests.test_fault_table import NAME as TEST_NAME
from tests.test_fault_table import defined
from tests.test_layers import APART, LAYERS

README = (ROOT / "README.rst").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.rst").read_text()

#: A file of this repository between double backquotes.
FILE = re.compile(
    r"``((?:miglet|tests|docs|etc|debian|\.github|\.ci)/[\w./*-]*|[A-Z]+\.rst)(?:::\w+)?``"
)

#: Files of a user's repository and of an example, and pages that are printed when the
#: site is built.
ELSEWHERE = {
    ".github/workflows/first.yml",
    "docs/reference",
    "miglet/controller/contract/schemas/command-DrainIfIdle.json",
    "docs/man/miglet.yaml.5.rst",
}


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


def test_the_documented_state_table_is_the_table():
    table = {
        state.value: {each.value for each in leaves_to(state)} - {state.value}
        for state in State
    }
    assert documented_edges() == table


def test_the_drawing_of_the_states_has_an_arc_for_each_pair_of_the_table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    drawing = ElementTree.fromstring(importlib.import_module("state_diagram").drawing())
    svg = "{http://www.w3.org/2000/svg}"
    names = [each.text for each in drawing.iter(f"{svg}text")]
    arcs = [path for path in drawing.iter(f"{svg}path") if path.get("fill") == "none"]
    assert names == [state.value for state in State]
    assert len(arcs) == sum(len(leaves_to(each) - {each}) for each in State)


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


def test_the_manual_page_of_the_controller_names_every_command():
    page = (ROOT / "docs" / "man" / "miglet-controller.1.rst").read_text()
    names = [command.name for command in COMMANDS.values()]
    assert [name for name in names if f"``{name}``" not in page] == []


def test_authors_of_controllers_are_told_what_to_do_about_each_cause_of_a_jobs_end():
    page = (ROOT / "docs" / "howto" / "controller.rst").read_text()
    causes = contract.schema("event")["definitions"]["cause"]["examples"]
    table = page.partition("* - run it again")[2].partition("\n\n")[0]
    assert sorted(re.findall("``([a-z_]+)``", table)) == sorted(causes)


def test_the_reference_has_everything_that_it_is_printed_from(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    printer = importlib.import_module("reference_pages")
    printer.write(tmp_path)
    for page, names in {
        "events": EVENTS,
        "commands": [each.name for each in COMMANDS.values()],
        "metrics": [*METRICS, *(series.name for series in AGENT)],
        "checks": CHECKS,
        "command_line": [*arguments.SUBCOMMANDS, *ctl.SUBCOMMANDS],
    }.items():
        text = (tmp_path / f"{page}.rst").read_text()
        assert names and [name for name in names if name not in text] == [], page


@pytest.mark.parametrize("page", ["events", "heartbeat"])
def test_the_reference_says_what_each_key_of_a_report_means(page, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    lines = "\n".join(importlib.import_module("reference_pages").PAGES[page]())
    rows = re.findall(r"\* - (``.*)\n +- (.*)\n +- (.*)", lines)
    assert len(rows) > 30
    assert [key for key, kind, meaning in rows if not (kind and meaning)] == []


def test_the_readme_shows_the_two_commands():
    assert "make demo" in README
    assert "make test" in README


def test_every_file_that_is_named_exists():
    def names_real_files(document):
        names = set(FILE.findall(document.read_text())) - ELSEWHERE
        assert [name for name in names if not any(ROOT.glob(name.rstrip("/")))] == []

    check_each(DOCUMENTS, names_real_files)


def test_every_test_that_is_named_exists():
    def names_real_tests(document):
        named = set(TEST_NAME.findall(document.read_text()))
        missing = [
            f"{file}::{name}"
            for file, name in named
            if name not in defined(ROOT / file)
        ]
        assert missing == []

    check_each(DOCUMENTS, names_real_tests)


def test_every_make_target_that_is_named_exists():
    def names_real_targets(document):
        named = set(re.findall(r"(?:``|^ +)make ([a-z-]+)", document.read_text(), re.M))
        targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
        assert named - set(targets) == set()

    check_each(DOCUMENTS, names_real_targets)


def test_every_module_that_is_run_can_be_run():
    def runs_real_modules(document):
        named = re.findall(
            r"python3? -m (miglet[.\w]*|tests[.\w]*)", document.read_text()
        )
        files = {ROOT / f"{name.replace('.', '/')}" for name in named}
        runnable = [file.with_suffix(".py") for file in files]
        runnable += [file / "__main__.py" for file in files]
        assert len([file for file in runnable if file.exists()]) == len(files)

    check_each(DOCUMENTS, runs_real_modules)
