"""The whole examples of CONTRIBUTING.rst: carried out in a copy of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.documents import Block, Command, blocks, commands
from tests.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

GUIDE = ROOT / "CONTRIBUTING.rst"

#: What the tests need of the repository.
PARTS = (
    "miglet",
    "tests",
    "docs",
    "etc",
    "debian",
    "setup.cfg",
    "setup.py",
    "Makefile",
)

LIMIT_SECONDS = 120.0


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository to be changed."""
    made = tmp_path / "copy"
    made.mkdir()
    for path in (*(ROOT / part for part in PARTS), *ROOT.glob("*.rst")):
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, made / path.name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(path, made)
    for name in (".github", ".ci"):
        shutil.copytree(ROOT / name, made / name)
    return made


def write(block: Block, copy: Path) -> None:
    """Write an example where the text has its reader write it."""
    assert block.place
    how, where = block.place
    name, _, mark = where.partition(" before: " if how == "insert in" else ": ")
    file = copy / name
    if how == "new file":
        assert not file.exists()
        file.write_text(block.text)
        return
    text = file.read_text()
    if how == "append to":
        file.write_text(f"{text}\n\n{block.text}")
        return
    assert text.count(mark) == 1, (
        f"{block}: {mark!r} stands there {text.count(mark)} times"
    )
    start = text.rindex("\n", 0, text.index(mark)) + 1
    indent = " " * (len(text[start:]) - len(text[start:].lstrip(" ")))
    end = start if how == "insert in" else text.index("\n", start) + 1
    space = "\n\n" if block.text.startswith("@") else ""
    example = textwrap.indent(block.text, indent)
    file.write_text(f"{text[:start]}{example}{space}{text[end:]}")


def run(command: Command, copy: Path) -> None:
    """Run a command in the copy, with this Python in place of the checkout's."""
    assert command.program == "python"
    _, _, target = command.text.partition(" > ")
    ran = subprocess.run(
        [sys.executable, *command.words[1:]],
        cwd=copy,
        env={
            **os.environ,
            "PYTHONPATH": str(copy),
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    if target:
        (copy / target).write_text(ran.stdout)


def carry_out(section: str, copy: Path) -> None:
    """Do what a section says, from top to bottom; it ends with its tests."""
    found = [block for block in blocks(GUIDE) if block.section == section]
    assert found[-1].language == "sh" and "pytest" in found[-1].text
    for block in found:
        if block.place:
            write(block, copy)
        else:
            for command in commands(block):
                run(command, copy)


def test_the_example_of_a_metric_works(copy: Path) -> None:
    carry_out("A metric", copy)


def test_the_example_of_a_setting_works(copy: Path) -> None:
    carry_out("A setting", copy)


def test_the_example_of_a_command_works(copy: Path) -> None:
    carry_out("A command", copy)


def test_the_example_of_an_event_works(copy: Path) -> None:
    carry_out("An event", copy)


def test_the_example_of_a_worker_works(copy: Path) -> None:
    carry_out("A worker", copy)
