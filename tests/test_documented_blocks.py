"""Every block of code in the documents is parsed, and run by a test or marked."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from miglet import arguments, cli
from miglet.config.schema import SCHEMA
from miglet.controller import contract
from miglet.ctl import __main__ as ctl
from miglet.reference import cli as reference
from tests.cases import check_each
from tests.documents import DOCUMENTS, HERE_DOCUMENT, Block, Command, blocks, commands
from tests.paths import ROOT
from tests.test_fault_table import defined

#: The languages that a block may have; the manual pages name none and mean shell.
LANGUAGES = {"sh", "yaml", "json", "python", "none", "text"}
MANUAL_PAGES = ROOT / "docs" / "man"

BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
COMMANDS = [
    command
    for block in BLOCKS
    if block.language in ("sh", "")
    for command in commands(block)
]
#: The new files that worked examples have the reader write.
MADE_BY_EXAMPLES = {block.notes.get("new file", "") for block in BLOCKS}

PARSERS = {
    "miglet": arguments.parser,
    "miglet-ctl": ctl.parser,
    "miglet-controller": reference.parser,
}

#: What `tests/test_documented_commands.py` runs, or `make` has of its own tests.
RUN_HERE = {*PARSERS, "make", "python", "kill", "grep", "install"}

#: What needs more of a machine than the demonstration has: a release, a free port.
NOT_HERE = (
    "miglet install-runner",
    "miglet --config",
    "miglet --set",
    "miglet-controller serve",
)

#: What a machine has besides the settings that an example shows.
COMPLETE = (
    "pool_id=pool",
    "vm_id=vm",
    "org_id=org",
    "controller.endpoint=https://controller.example",
)


def of_language(language: str) -> pytest.MarkDecorator:
    found = [block for block in BLOCKS if block.language == language]
    return pytest.mark.parametrize("block", found, ids=str)


def settings_in(block: Block) -> list[str]:
    """The documents in a block that are settings of MIGlet."""
    texts = [block.text] if block.language == "yaml" else []
    found = []
    for text in (*texts, *HERE_DOCUMENT.findall(block.text)):
        value = yaml.safe_load(text)
        if isinstance(value, dict) and "miglet" in value:  # below cloud-init's own
            value, text = value["miglet"], yaml.safe_dump(value["miglet"])
        if isinstance(value, dict) and value.keys() & SCHEMA["properties"].keys():
            found.append(text)
    return found


EXAMPLES = [
    pytest.param(text, id=str(block)) for block in BLOCKS for text in settings_in(block)
]


def has(settings: dict, key: str) -> bool:
    """Whether a document names the dotted key."""
    head, _, rest = key.partition(".")
    return key in settings or bool(
        rest and isinstance(settings.get(head), dict) and has(settings[head], rest)
    )


def what_runs(tests: tuple[str, ...]) -> str:
    """The text of the files beside these tests, and of our scripts that those name.

    It has no signs between words.
    """
    folders = {(ROOT / test.partition("::")[0]).parent for test in tests}
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    text = "\n".join(path.read_text(errors="replace") for path in files)
    for script in sorted(set(re.findall(r"\betc/[\w-]+\.sh\b", text))):
        text += (ROOT / script).read_text()
    return " ".join(re.sub(r"[\"',()\[\]]", " ", text).split())


def is_carried_out(block: Block) -> bool:
    """Whether the test that is named above a block reads the page and runs it all."""
    files = [ROOT / test.partition("::")[0] for test in block.tests]
    return any(block.document.name in file.read_text() for file in files)


def key_of(command: Command) -> str:
    """What of a command must stand in a test that runs it."""
    program, words = command.program, command.words[1:]
    named = words and re.fullmatch("[a-z][a-z-]*", words[0])
    return f"{program} {words[0]}" if named else program


def is_covered(command: Command) -> bool:
    """Whether something runs a command, or the reader learns that nothing does."""
    if command.not_run:
        return True
    if is_carried_out(command.block):
        return True
    if key_of(command) in what_runs(command.block.tests):
        return True
    here = not command.text.startswith(NOT_HERE)
    return here and command.program in RUN_HERE


def test_there_are_blocks_of_every_language():
    assert {block.language for block in BLOCKS} == {*LANGUAGES, ""}
    assert len(COMMANDS) > 80 and len(EXAMPLES) >= 8


def test_every_block_names_its_language():
    unnamed = [
        str(block)
        for block in BLOCKS
        if block.language not in LANGUAGES
        and MANUAL_PAGES not in block.document.parents
    ]
    assert unnamed == []


def test_every_command_is_run_by_a_test_or_marked_as_not_run():
    assert [str(each) for each in COMMANDS if not is_covered(each)] == []


def test_every_command_line_of_ours_is_one_that_we_take():
    ours = [each for each in COMMANDS if each.program in PARSERS]
    check_each(ours, is_taken)


def is_taken(command: Command) -> None:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(None):
            PARSERS[command.program]().parse_args(command.words[1:])
    except SystemExit as ended:
        assert ended.code == 0, complaint.getvalue()


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.tests], ids=str)
def test_every_test_that_is_said_to_run_a_block_exists(block):
    named = [test.split("::") for test in block.tests]
    missing = [
        f"{file}::{name}" for file, name in named if name not in defined(ROOT / file)
    ]
    assert missing == []


@pytest.mark.parametrize(
    "command", [each for each in COMMANDS if "pytest" in each.words], ids=str
)
def test_every_file_of_tests_that_a_command_names_exists(command):
    files = [word for word in command.words if word.startswith("tests/")]
    missing = {name for name in files if not (ROOT / name).exists()}
    assert files and missing - MADE_BY_EXAMPLES == set()


@of_language("yaml")
def test_every_block_of_yaml_is_settings_or_not_ours(block):
    assert settings_in(block) or (yaml.safe_load(block.text) and block.not_run)


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_of_settings_is_valid(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MIGLET_CLOUD", "none")
    file = tmp_path / "miglet.yaml"
    file.write_text(text)
    given = yaml.safe_load(text)
    lacking = [
        argument
        for setting in COMPLETE
        for argument in ("--set", setting)
        if not has(given, setting.partition("=")[0])
    ]
    status = cli.main(["--config", str(file), *lacking, "config"])
    assert (status, capsys.readouterr().err) == (0, "")


@of_language("json")
def test_every_block_of_json_is_what_it_is_said_to_be(block):
    text = (
        block.text if block.text.startswith("{") else f"{{{block.text.rstrip()[:-1]}}}"
    )
    value = json.loads(text)
    assert block.schema or block.tests or block.place
    if block.schema:
        Draft7Validator(contract.schema(block.schema)).validate(value)


@of_language("python")
def test_every_block_of_python_is_python(block):
    entry = block.text.startswith('"') and "new file" not in block.notes
    ast.parse(f"{{{block.text}}}" if entry else block.text)


@of_language("none")
def test_what_is_packers_is_said_to_be_not_run(block):
    assert block.not_run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sudo miglet-ctl drain --reason 'new image'", ("miglet-ctl", 4)),
        ('openssl rand -hex 16 | install /dev/stdin "x y"', ("openssl", 4)),
        (".venv/bin/python -m x > y", ("python", 3)),
    ],
)
def test_a_command_ends_at_the_first_pipe_or_redirection(text, expected):
    block = Block(Path("x"), 1, "", "sh", "", False, {})
    command = Command(block, text, False)
    assert (command.program, len(command.words)) == expected


def test_what_is_not_run_is_said_for_a_section_or_a_line(tmp_path):
    document = tmp_path / "page.rst"
    document.write_text(
        """\
Page
====

.. code-block:: sh

    one    # not run by our tests

One
---

*Not run by our tests: it needs a cloud.*

.. code-block:: sh

    two && three

Two
---

.. run by tests/test_docs.py::test_a, tests/test_docs.py::test_b

.. code-block:: sh

    four \\
      five
"""
    )
    found = blocks(document)
    assert [block.not_run for block in found] == [False, True, False]
    assert found[2].tests == [
        "tests/test_docs.py::test_a",
        "tests/test_docs.py::test_b",
    ]
    shell = [(each.text, each.not_run) for block in found for each in commands(block)]
    assert shell == [
        ("one", True),
        ("two", True),
        ("three", True),
        ("four five", False),
    ]
