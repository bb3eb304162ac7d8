"""The client held against the contract's documents."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft7Validator

from miglet.controller import answers
from miglet.controller.answers import Call
from miglet.controller.contract import openapi, schema
from miglet.errors import BadAnswer
from miglet.http.transport import Answer

AT = "2026-01-15T10:30:00Z"
COMMAND = {"id": "c-1", "type": "Drain", "parameters": {}, "created_at": AT}
EXAMPLES = {
    "registration-token": {
        "registration_token": "AAAREGISTRATION",
        "expires_at": AT,
        "runner_url": "https://github.com/octo",
        "runner_group": "default",
        "labels": ["linux"],
    },
    "removal-token": {"removal_token": "AAAREMOVAL", "expires_at": AT},
    "commands": {"commands": [COMMAND], "vm_id": "vm-1"},
}
READERS = {
    "registration-token": answers.registration_token,
    "removal-token": answers.removal_token,
    "commands": lambda body: answers.commands(Answer(200, {}, body), "vm-1"),
}


def operations():
    return {
        (method.upper(), path.rpartition("/")[2]): operation
        for path, methods in openapi()["paths"].items()
        for method, operation in methods.items()
        if path.count("/") == 5  # what lies directly below a machine
    }


@pytest.mark.parametrize("call", Call)
def test_each_call_is_one_of_the_contract(call):
    operation = operations()[call.method, call.path]
    assert any(status.startswith("2") for status in operation["responses"])


@pytest.mark.parametrize("call", Call)
def test_each_status_of_the_contract_has_an_outcome_of_its_own(call):
    for status in operations()[call.method, call.path]["responses"]:
        if status.isdigit():
            named = {rule.status for rule in answers.TABLE[call]}
            assert status in named or f"{status[0]}xx" in named


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_the_contract_allows_is_read(name):
    Draft7Validator(schema(name)).validate(EXAMPLES[name])
    READERS[name](json.dumps(EXAMPLES[name]).encode())


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name in EXAMPLES for field in schema(name).get("required", ())],
)
def test_what_the_contract_requires_is_missed(name, field):
    body = {key: value for key, value in EXAMPLES[name].items() if key != field}
    with pytest.raises(BadAnswer, match=f"{field}: missing"):
        READERS[name](json.dumps(body).encode())


@pytest.mark.parametrize("name", ["registration-token", "removal-token"])
def test_the_client_insists_on_nothing_else(name):
    required = schema(name)["required"]
    body = {key: value for key, value in EXAMPLES[name].items() if key in required}
    READERS[name](json.dumps(body).encode())


def test_commands_are_missed_in_an_object_that_has_something_else():
    with pytest.raises(BadAnswer, match="commands: missing"):
        READERS["commands"](b'{"vm_id": "vm-1"}')
