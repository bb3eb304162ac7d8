"""The reference controller keeps the contract: each call, each answer, each path."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft7Validator

from miglet.controller import contract
from miglet.reference.api import AgentApi, OperatorApi
from miglet.reference.fleet import TokenSource, controller_on
from miglet.reference.store import open_database
from tests.reference_samples import event, heartbeat

pytestmark = pytest.mark.integration

EVENT = event("VMStarted")
TOKEN_REQUEST = {"org_id": "o", "pool_id": "p", "runner_group": "g", "labels": ["l"]}

#: In order: operation, body; every operation of the document is here.
CALLS: list[tuple[str, Any]] = [
    ("postEvent", EVENT),
    ("postHeartbeat", heartbeat()),
    ("createRegistrationToken", TOKEN_REQUEST),
    ("createRemovalToken", {"org_id": "o", "pool_id": "p"}),
    ("queueCommand", {"type": "Drain"}),
    ("pollCommands", None),
    ("showCommand", None),
    ("listEvents", None),
    ("listHeartbeats", None),
    ("listVms", None),
    ("showVm", None),
]


def operations() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Operation id to path, method and description."""
    return {
        call["operationId"]: (path, method, call)
        for path, calls in contract.openapi()["paths"].items()
        for method, call in calls.items()
        if method != "parameters"
    }


def schema_of(call: dict[str, Any], status: int) -> dict[str, Any]:
    """The schema of the answer that the document promises."""
    promised = call["responses"][str(status)]
    if "$ref" in promised:
        name = promised["$ref"].rpartition("/")[2]
        promised = contract.openapi()["components"]["responses"][name]
    (body,) = promised["content"].values()
    name = body["schema"]["$ref"].removeprefix("schemas/").removesuffix(".json")
    return contract.schema(name)


def test_every_path_of_the_document_is_served_and_no_other(tmp_path):
    db = open_database(tmp_path / "c.db")
    parts = controller_on(db, TokenSource(), 15.0, 5.0)
    routes = [*AgentApi(parts).routes(), *OperatorApi(parts).routes()]
    served = {(route.path, route.method.lower()) for route in routes}
    db.close()
    assert served == {(path, method) for path, method, _ in operations().values()}


def test_every_operation_is_called_here():
    assert {name for name, _ in CALLS} == set(operations())


def test_every_answer_is_as_the_document_promises(controller):
    command = "none"
    for name, body in CALLS:
        path, method, call = operations()[name]
        url = controller.endpoint + path.format(vm_id="vm-1", id=command)
        key = {"Idempotency-Key": EVENT["id"], "traceparent": f"00-{'a' * 32}-b-01"}
        answer = controller.session.request(
            method, url, json=body, headers=key, timeout=10
        )
        assert answer.ok, (name, answer.text)
        validator = Draft7Validator(schema_of(call, answer.status_code))
        validator.validate(answer.json())
        if name == "queueCommand":
            command = answer.json()["id"]


@pytest.mark.parametrize("name, body", CALLS)
def test_every_refusal_is_one_that_the_document_names(controller, name, body):
    path, method, call = operations()[name]
    url = controller.endpoint + path.format(vm_id="no one", id="none")
    spoilt = {"json": 7} if body else {"params": {"wait": "x"}}
    anonymous = {"Authorization": "Bearer nobody"}
    for options in spoilt, {**spoilt, "headers": anonymous}:
        answer = controller.session.request(method, url, timeout=10, **options)
        if not answer.ok:  # /vms has nothing that could be spoilt
            validator = Draft7Validator(schema_of(call, answer.status_code))
            validator.validate(answer.json())
    assert answer.status_code == 401
