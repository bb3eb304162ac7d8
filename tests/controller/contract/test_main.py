"""The tables of answers in the OpenAPI document are made from the agent's own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from miglet.controller import contract
from miglet.controller.answers import TABLE, Call
from miglet.controller.contract import __main__ as generated

OPENAPI = contract.FOLDER / "openapi.json"


def test_the_document_is_what_the_agents_tables_make_of_it():
    printed = generated.document()
    assert printed == OPENAPI.read_text(), (
        f"python -m miglet.controller.contract {OPENAPI}"
    )
    assert printed.count("| status | body | MIGlet |") == len(Call)


@pytest.mark.parametrize("call", Call)
def test_a_table_has_a_row_for_each_rule_of_its_call(call):
    lines = generated.table(call).splitlines()
    assert lines[:2] == ["| status | body | MIGlet |", "|---|---|---|"]
    assert len(lines) == 2 + len(TABLE[call])
    assert all(line.count("|") == 4 for line in lines[2:])


def test_a_table_that_is_there_already_is_replaced_and_not_repeated(monkeypatch):
    once = json.loads(generated.document())
    monkeypatch.setattr(contract, "openapi", lambda: once)
    assert json.loads(generated.document()) == once


@pytest.mark.integration
def test_it_prints_the_document():
    done = subprocess.run(
        [sys.executable, "-m", "miglet.controller.contract"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == OPENAPI.read_text()


@pytest.mark.integration
def test_it_writes_into_a_file(tmp_path):
    written = str(tmp_path / "openapi.json")
    command = [sys.executable, "-m", "miglet.controller.contract", written]
    subprocess.run(command, check=True)
    assert (tmp_path / "openapi.json").read_text() == OPENAPI.read_text()


def test_the_operation_that_queues_a_command_names_the_schema_of_each():
    tree = json.loads(generated.document())
    said = tree["paths"]["/api/v1/vms/{vm_id}/commands"]["post"]["description"]
    assert all(f"schemas/command-{name}.json" in said for name in contract.COMMANDS)
