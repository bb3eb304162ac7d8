"""The contract: a valid OpenAPI document, valid schemas, each with good and bad."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from jsonschema import Draft7Validator

from miglet.controller import contract
from miglet.messages.events import EVENTS
from tests.reference_samples import EVENT_DATA, TIMESTAMP, USAGE, event, heartbeat

TOKEN_REQUEST = {
    "org_id": "org-1",
    "pool_id": "pool-1",
    "runner_group": "default",
    "labels": ["linux"],
}
TOKEN = {
    "registration_token": "A1B2",
    "expires_at": TIMESTAMP,
    "runner_url": "https://github.com/octo",
    "runner_group": "default",
    "labels": [],
}
COMMAND = {"id": "c-1", "type": "Drain", "created_at": TIMESTAMP}
PROBLEM = {"type": "about:blank", "title": "Gone", "status": 410, "detail": "gone"}
COUNTS = {
    "events": {"Error": 1},
    "duplicates": 0,
    "refused": 0,
    "heartbeats": 0,
    "commands": 0,
    "commands_open": 0,
}
VM = {
    "vm_id": "vm-1",
    "pool_id": None,
    "org_id": None,
    "state": None,
    "health": "gone",
    "missed_heartbeats": 4,
    "first_seen_at": TIMESTAMP,
    "last_heartbeat_at": None,
    "counts": COUNTS,
    "gaps": [{"first": 2, "last": 3}],
    "repeated_sequences": 0,
}
STATUS = {
    "id": "c-1",
    "type": "Drain",
    "parameters": {},
    "created_at": TIMESTAMP,
    "expires_at": None,
    "status": "queued",
    "times_handed_out": 0,
    "handed_out_at": None,
    "completed_at": None,
    "outcome": None,
    "reason": None,
}
ROW = {"position": 1, "received_at": 1.5, "received_mono": 2.5}

#: Of each schema, bodies as they should be.
GOOD: dict[str, list[Any]] = {
    "event": [
        *(event(type) for type in EVENT_DATA),
        {**event(), "unknown": 1},
        {**event(), "type": "RunnerUpdated"},
        {**event(), "type": "RunnerUpdated", "sequence": None, "data": {}},
        {**event(), "state": "hibernating"},
        event("JobCompleted", result="skipped", cause="bad luck"),
        event("TerminationNotice", kind="soon"),
        event("Error", category="cosmic"),
        event("CommandCompleted", outcome="deferred"),
        event("VMStarted", preflight=[{"id": "disk", "status": "skipped"}]),
        event("VMStopped", removal="pending", runner_removed=None),
    ],
    "heartbeat": [
        heartbeat(),
        heartbeat(unknown=1, miglet_state="hibernating", runner_state="updating"),
        heartbeat(vm_health={}),
        heartbeat(current_job={"job_id": None, "resource_usage": USAGE}),
    ],
    "registration-token-request": [TOKEN_REQUEST, {**TOKEN_REQUEST, "zone": "b"}],
    "registration-token": [
        TOKEN,
        {**TOKEN, "unknown": 1},
        {**TOKEN, "expires_at": None, "runner_group": None, "labels": None},
        {**TOKEN, "expires_at": "", "runner_group": ""},
        {"registration_token": "A", "runner_url": "https://github.com/octo"},
    ],
    "removal-token-request": [{"org_id": "o", "pool_id": "p"}],
    "removal-token": [
        {"removal_token": "A", "expires_at": TIMESTAMP, "x": None},
        {"removal_token": "A"},
    ],
    "acknowledgement": [{}, {"acknowledged": True}, {"status": "received", "x": 1}],
    "commands": [
        {"commands": None},
        {"commands": [], "vm_id": "vm-1"},
        {"commands": [COMMAND, {**COMMAND, "parameters": None, "x": 1}]},
        [],
        [COMMAND],
        {},
    ],
    "command": [
        COMMAND,
        {**COMMAND, "expires_at": None, "parameters": {"a": []}},
        {"id": "c-1", "type": "Drain", "expires_at": ""},
    ],
    "command-Drain": [{}],
    "command-Shutdown": [{}, {"mode": "immediate", "reason": "image is old"}],
    "command-UpdateConfig": [{"config": {"heartbeat": {"interval": "5s"}}}],
    "command-SetLogLevel": [{"level": "debug"}, {"level": "WARN"}],
    "command-RotateCredentials": [{}],
    "problem": [PROBLEM, {**PROBLEM, "errors": [{"field": "a.b", "reason": "no"}]}],
    "command-request": [{"type": "drain"}, {"type": "Drain", "parameters": None}],
    "command-queued": [{"id": "c-1"}],
    "command-status": [STATUS, {**STATUS, "status": "completed", "outcome": "done"}],
    "received-events": [
        {"vm_id": "vm-1", "events": [{**ROW, "event": {}}], "next": 1},
    ],
    "received-heartbeats": [
        {"vm_id": "vm-1", "heartbeats": [{**ROW, "heartbeat": {}}]},
    ],
    "vm": [VM, {**VM, "last_heartbeat": heartbeat()}],
    "vms": [{"vms": []}, {"vms": [VM]}],
}

#: Of each schema, bodies that must not pass.
BAD: dict[str, list[Any]] = {
    "event": [
        [],
        {**event(), "schema": 2},
        {**event(), "id": "not a uuid"},
        {**event(), "sequence": None},
        {**event(), "sequence": 0},
        {**event(), "sequence": 2**53},
        {**event(), "sequence": "1"},
        {**event("JobHeartbeat"), "sequence": 1},
        {**event(), "type": ""},
        {**event(), "type": 7},
        {**event(), "timestamp": "2026-01-15 10:30:00"},
        {**event(), "timestamp": 1768473000},
        {**event(), "vm_id": "a b"},
        {**event(), "vm_id": "a/b"},
        {**event(), "vm_id": ""},
        {**event(), "job_id": 555000111},
        {**event(), "trace_id": "0AF7651916CD43DD8448EB211C80319C"},
        {**event(), "data": None},
        event("JobCompleted", duration_seconds=-1),
        event("JobCompleted", resource_usage={}),
        event("RunnerRegistered", attempts=0),
    ],
    "heartbeat": [
        heartbeat(workers={"runner-watcher": {"restarts": 0}}),
        heartbeat(events_pending=-1),
        heartbeat(vm_health=None),
        heartbeat(vm_health={"cpu_percent": "3"}),
        heartbeat(current_job="build"),
    ],
    "registration-token-request": [{**TOKEN_REQUEST, "labels": "linux"}, {}],
    "registration-token": [
        {**TOKEN, "registration_token": ""},
        {**TOKEN, "expires_at": "x"},
        {**TOKEN, "labels": ["a,b"]},
        {**TOKEN, "labels": [""]},
        {**TOKEN, "labels": ["a\0"]},
        {**TOKEN, "runner_group": "-x"},
    ],
    "removal-token-request": [{"org_id": "o"}],
    "removal-token": [{"removal_token": ""}, {}],
    "acknowledgement": [{"acknowledged": "yes"}, None],
    "commands": [
        {"vm_id": "vm-1"},
        {"commands": {}},
        {"commands": [{}]},
        {"commands": ["Drain"]},
        ["Drain"],
    ],
    "command": [
        {**COMMAND, "id": ""},
        {**COMMAND, "id": "x" * 129},
        {**COMMAND, "id": 7},
        {**COMMAND, "parameters": []},
        {**COMMAND, "expires_at": "tomorrow"},
        {"type": "Drain"},
    ],
    "command-Drain": [{"reason": "x"}, None],
    "command-Shutdown": [{"mode": "now"}, {"after": 1}, {"reason": 7}],
    "command-UpdateConfig": [{}, {"config": []}, {"config": {}, "merge": True}],
    "command-SetLogLevel": [{}, {"level": 1}, {"level": "trace"}],
    "command-RotateCredentials": [{"token": "x"}],
    "problem": [{**PROBLEM, "status": 200}, {"detail": "gone"}],
    "command-request": [{}, {"type": "Drain", "id": "c-1"}, {"type": ""}],
    "command-queued": [{"id": ""}],
    "command-status": [{**STATUS, "outcome": "ok"}],
    "received-events": [{"vm_id": "vm-1", "events": [{}], "next": 1}],
    "received-heartbeats": [{"vm_id": "vm-1", "heartbeats": [ROW]}],
    "vm": [{**VM, "health": "ok"}, {**VM, "gaps": [{"first": 1}]}],
    "vms": [{"vms": None}, {"vms": [{}]}],
}

#: The keys of each event's ``data``, as agreed.
KEYS = {
    "VMStarted": "version boot_id cloud zone machine_type image cpu_count memory_bytes"
    " disk_bytes runner_version preflight timeline",
    "RunnerRegistered": "runner_name runner_id runner_version labels runner_group"
    " runner_url attempts duration_seconds timeline",
    "JobStarted": "name repository workflow ref commit run_attempt actor event_name"
    " source",
    "JobHeartbeat": "elapsed_seconds resource_usage",
    "JobCompleted": "result cause exit_code started_at finished_at duration_seconds"
    " resource_usage repository workflow ref commit run_attempt evidence",
    "RunnerCrashed": "exit_code signal last_lines attempt will_retry",
    "TerminationNotice": "kind deadline source",
    "VMShuttingDown": "reason requested_by uptime_seconds",
    "VMStopped": "reason requested_by uptime_seconds removal runner_removed"
    " events_dropped",
    "Error": "category code message component hint",
    "CommandCompleted": "command_id command_type outcome reason",
}


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every schema within `schema`."""
    if isinstance(schema, list):
        return [found for each in schema for found in objects(each)]
    if isinstance(schema, dict):
        return [schema, *objects(list(schema.values()))]
    return []


def test_the_openapi_document_is_valid_and_its_references_resolve():
    # 0.5 was the first to know OpenAPI 3.1; validate_url has had its name since 0.6.
    library = pytest.importorskip("openapi_spec_validator", minversion="0.5")
    name = "validate_url" if hasattr(library, "validate_url") else "validate_spec_url"
    getattr(library, name)((contract.FOLDER / "openapi.json").as_uri())


def test_every_schema_file_is_used_by_the_openapi_document():
    text = (contract.FOLDER / "openapi.json").read_text()
    unused = [n for n in contract.SCHEMAS if f"{n}.json" not in text]
    assert unused == ["command"]  # the document has it within `commands`


@pytest.mark.parametrize("name", contract.SCHEMAS)
def test_every_schema_is_valid_draft_7_and_refers_to_itself_only(name):
    schema = contract.schema(name)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert schema["title"]
    assert schema["description"]
    Draft7Validator.check_schema(schema)
    for each in objects(schema):
        assert str(each.get("$ref", "#")).startswith("#")


def test_every_schema_has_good_and_bad_examples():
    assert set(GOOD) == set(BAD) == set(contract.SCHEMAS)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_body_is_accepted(name):
    validator = Draft7Validator(contract.schema(name))
    refused = [(body, list(validator.iter_errors(body))) for body in GOOD[name]]
    assert [(body, errors) for body, errors in refused if errors] == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_refused(name):
    validator = Draft7Validator(contract.schema(name))
    assert [body for body in BAD[name] if validator.is_valid(body)] == []


@pytest.mark.parametrize("name", ["event", "heartbeat"])
def test_each_key_of_an_envelope_must_be_there(name):
    validator = Draft7Validator(contract.schema(name))
    whole = GOOD[name][0]
    for key in contract.schema(name)["required"]:
        assert not validator.is_valid({k: v for k, v in whole.items() if k != key})


@pytest.mark.parametrize("type", KEYS)
def test_each_key_of_an_events_data_must_be_there_and_others_may(type):
    validator = Draft7Validator(contract.schema("event"))
    for key in KEYS[type].split():
        spoilt = event(type)
        del spoilt["data"][key]
        assert not validator.is_valid(spoilt), key
    validator.validate(event(type, one_more="thing"))


def test_every_type_of_event_is_in_the_contract():
    types = contract.schema("event")["properties"]["type"]["examples"]
    assert set(types) == set(EVENTS), "examples of type in event.json"
    assert set(contract.schema("event")["definitions"]) >= set(EVENTS), "event.json"
    assert set(KEYS) == set(EVENTS), "KEYS of this module"
    assert len(types) == len(EVENTS)


@pytest.mark.parametrize("name", ["event", "heartbeat"])
def test_a_consumer_is_bound_to_no_list_of_values(name):
    closed = [each for each in objects(contract.schema(name)) if "enum" in each]
    assert closed == []
    assert contract.schema(name).get("additionalProperties", True) is True


@pytest.mark.parametrize("type", KEYS)
def test_the_agent_sends_the_keys_that_the_contract_names(type):
    described = contract.schema("event")["definitions"][type]["properties"]
    fields = {field.name for field in dataclasses.fields(EVENTS[type])}
    assert fields == set(described)


def test_every_command_has_a_schema_of_its_parameters():
    described = {
        n for n in contract.SCHEMAS if n.startswith("command-") and n[8].isupper()
    }
    assert described == {f"command-{name}" for name in contract.COMMANDS}


def test_an_unknown_schema_is_named_as_unknown():
    with pytest.raises(LookupError, match="no schema 'evnt'.*heartbeat"):
        contract.schema("evnt")


def test_refusals_in_the_document_are_problems():
    for path, calls in contract.openapi()["paths"].items():
        for method, call in calls.items():
            if method != "parameters":
                refusals = [c for c in call["responses"] if c[0] in "45"]
                assert {"400", "401", "403", "429", "503"} <= set(refusals), path
    for name, response in contract.openapi()["components"]["responses"].items():
        assert list(response["content"]) == ["application/problem+json"], name
