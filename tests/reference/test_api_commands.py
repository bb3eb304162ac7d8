"""The reference controller and commands: queue, long poll, lease, outcome."""

from __future__ import annotations

import json
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft7Validator

from miglet.controller import contract
from miglet.reference.store import MAX_AT_ONCE, Arrival, CommandQueue, open_database
from tests.reference_process import TOKEN, ReferenceController, running_controller
from tests.reference_samples import event, heartbeat
from tests.support import Stopwatch, eventually

pytestmark = pytest.mark.integration

LEASE_SECONDS = 0.4


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    with running_controller(folder, command_lease=LEASE_SECONDS) as running:
        yield running


@pytest.fixture
def vm(controller) -> str:
    """A machine that has called and that no other test knows."""
    name = f"vm-{uuid.uuid4()}"
    url = controller.url(f"vms/{name}/heartbeat")
    controller.session.post(url, json=heartbeat(name), timeout=10).raise_for_status()
    return name


@pytest.fixture
def queue(tmp_path):
    db = open_database(tmp_path / "queue.db")
    yield CommandQueue(db, lease_seconds=5.0)
    db.close()


def poll(controller: ReferenceController, vm: str, wait: float = 0) -> list:
    answer = controller.ask(f"vms/{vm}/commands", wait=wait)
    Draft7Validator(contract.schema("commands")).validate(answer)
    assert answer["vm_id"] == vm
    return answer["commands"] or []


def complete(controller: ReferenceController, vm: str, id: str, **outcome) -> None:
    done = event("CommandCompleted", vm=vm, command_id=id, **outcome)
    answer = controller.session.post(
        controller.url(f"vms/{vm}/events"),
        json=done,
        headers={"Idempotency-Key": done["id"]},
        timeout=10,
    )
    assert answer.status_code == 200, answer.text


def refused(controller: ReferenceController, vm: str, body) -> tuple[int, str]:
    url = controller.url(f"vms/{vm}/commands")
    answer = controller.session.post(url, json=body, timeout=10)
    return answer.status_code, answer.json()["detail"]


def half_poll(controller: ReferenceController, vm: str) -> socket.socket:
    """A long poll whose answer nobody reads."""
    address = urlsplit(controller.endpoint)
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall(
        f"GET /api/v1/vms/{vm}/commands?wait=20 HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    return connection


def test_none_is_null(controller, vm):
    answer = controller.ask(f"vms/{vm}/commands")
    assert answer == {"commands": None, "vm_id": vm}


def test_a_command_goes_its_way_from_queued_to_completed(controller, vm):
    id = controller.command(vm, "Shutdown", {"mode": "immediate"})
    path = f"vms/{vm}/commands/{id}"
    assert controller.ask(path)["status"] == "queued"
    (command,) = poll(controller, vm)
    assert command["id"] == id
    assert command["type"] == "Shutdown"
    assert command["parameters"] == {"mode": "immediate"}
    assert controller.ask(path)["status"] == "handed_out"
    complete(controller, vm, id, outcome="rejected", reason="no job")
    status = controller.outcome(vm, id)
    assert (status["status"], status["outcome"]) == ("completed", "rejected")
    assert status["reason"] == "no job"
    assert status["times_handed_out"] == 1


def test_a_waiting_poll_is_answered_by_a_new_command_at_once(controller):
    vm = f"vm-{uuid.uuid4()}"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(poll, controller, vm, 20)
        # Its first call is the poll: known means that the poll is being held.
        eventually(lambda: controller.knows(vm))
        watch = Stopwatch()
        id = controller.command(vm, "Drain")
        assert waiting.result(10)[0]["id"] == id
        assert watch.seconds() < 2.0


def test_a_poll_is_held_for_as_long_as_it_asked(controller, vm):
    began = time.monotonic()
    watch = Stopwatch()
    assert poll(controller, vm, wait=0.3) == []
    assert time.monotonic() - began > 0.29
    assert watch.seconds() < 5.0


def test_commands_of_other_machines_do_not_wake_a_poll(controller, vm):
    other = f"vm-{uuid.uuid4()}"
    poll(controller, other)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(poll, controller, vm, 0.5)
        controller.command(other, "Drain")
        assert waiting.result(10) == []


def test_a_command_is_handed_out_again_after_its_lease_until_completed(controller, vm):
    id = controller.command(vm, "Drain")
    assert [each["id"] for each in poll(controller, vm)] == [id]
    assert poll(controller, vm) == []
    watch = Stopwatch()
    assert [each["id"] for each in poll(controller, vm, wait=20)] == [id]
    assert watch.seconds() < 5.0
    complete(controller, vm, id)
    assert poll(controller, vm, wait=2 * LEASE_SECONDS) == []
    assert controller.outcome(vm, id)["times_handed_out"] == 2


def test_nothing_is_handed_out_to_a_client_that_is_gone(controller):
    vm = f"vm-{uuid.uuid4()}"
    with half_poll(controller, vm):
        eventually(lambda: controller.knows(vm))
    id = controller.command(vm, "Drain")
    assert controller.ask(f"vms/{vm}/commands/{id}")["times_handed_out"] == 0
    assert [each["id"] for each in poll(controller, vm)] == [id]


def test_a_command_lost_with_its_connection_is_handed_out_again(controller, vm):
    with half_poll(controller, vm):
        id = controller.command(vm, "Drain")
        path = f"vms/{vm}/commands/{id}"
        eventually(lambda: controller.ask(path)["times_handed_out"] == 1)
    assert [each["id"] for each in poll(controller, vm, wait=20)] == [id]


def test_the_first_outcome_counts(controller, vm):
    id = controller.command(vm, "Drain")
    complete(controller, vm, id, outcome="done")
    complete(controller, vm, id, outcome="failed")
    assert controller.outcome(vm, id)["outcome"] == "done"


def test_another_machine_cannot_complete_a_command(controller, vm):
    id = controller.command(vm, "Drain")
    complete(controller, f"vm-{uuid.uuid4()}", id)
    assert controller.ask(f"vms/{vm}/commands/{id}")["outcome"] is None


def test_who_waits_for_an_outcome_gets_it_at_once(controller, vm):
    id = controller.command(vm, "Drain")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(controller.outcome, vm, id, 20)
        complete(controller, vm, id)
        assert waiting.result(10)["outcome"] == "done"


@pytest.mark.parametrize("name", ["SetLogLevel", "set_log_level", "SETLOGLEVEL"])
def test_types_are_matched_without_case_and_underscores(controller, vm, name):
    controller.command(vm, name, {"level": "debug"})
    assert poll(controller, vm)[0]["type"] == "SetLogLevel"


@pytest.mark.parametrize(
    "body, detail",
    [
        ({"type": "Reboot"}, "no command 'Reboot'; there are Drain"),
        ({"type": "Drain", "parameters": {"x": 1}}, "'x' was unexpected"),
        ({"type": "SetLogLevel"}, "'level' is a required property"),
        ({"type": "Shutdown", "parameters": {"mode": "x"}}, "mode: 'x' is not one"),
        ({"type": "Drain", "expires_at": "soon"}, "expires_at"),
        ({"type": "Drain", "id": "mine"}, "'id' was unexpected"),
        ({"parameters": {}}, "'type' is a required property"),
        ([], "is not of type 'object'"),
    ],
)
def test_a_command_that_cannot_be_obeyed_is_refused(controller, vm, body, detail):
    status, message = refused(controller, vm, body)
    assert status == 422
    assert detail in message
    assert poll(controller, vm) == []


def test_a_huge_command_is_refused(controller, vm):
    body = {"type": "UpdateConfig", "parameters": {"config": {"a": "x" * 65536}}}
    assert refused(controller, vm, body)[0] == 413


def test_an_unknown_machine_is_given_no_command(controller):
    status, detail = refused(controller, "nobody", {"type": "Drain"})
    assert (status, detail) == (404, "no machine 'nobody' has called yet")


def test_an_unknown_command_is_not_found(controller, vm):
    url = controller.url(f"vms/{vm}/commands/none")
    assert controller.session.get(url, timeout=10).status_code == 404


def test_the_end_of_the_controller_answers_waiting_polls(tmp_path):
    with ThreadPoolExecutor(1) as threads:
        with running_controller(tmp_path) as controller:
            waiting = threads.submit(poll, controller, "vm-1", 50)
            eventually(lambda: controller.knows("vm-1"))
            watch = Stopwatch()
        assert watch.seconds() < 4.0
        assert controller.process.returncode == 0
        assert waiting.result(10) == []


def test_open_commands_outlive_a_restart(tmp_path):
    with running_controller(tmp_path) as controller:
        poll(controller, "vm-1")
        id = controller.command("vm-1", "Drain")
        poll(controller, "vm-1")
    with running_controller(tmp_path) as controller:
        assert [each["id"] for each in poll(controller, "vm-1")] == [id]


def test_commands_are_handed_out_oldest_first_and_a_few_at_a_time(queue):
    ids = [queue.add("vm", {"type": "Drain"}, at=0.0) for _ in range(MAX_AT_ONCE + 2)]
    first = queue.claim("vm", Arrival(0.0, now=1.0))
    second = queue.claim("vm", Arrival(0.0, now=1.0))
    assert [each["id"] for each in first + second] == ids
    assert queue.claim("vm", Arrival(0.0, now=5.9)) == []
    assert [each["id"] for each in queue.claim("vm", Arrival(0.0, 6.1))] == ids[:8]


def test_the_largest_answer_is_less_than_an_agent_reads(queue):
    config = {"a": "x" * (64 * 1024 - 60)}
    for _ in range(MAX_AT_ONCE + 1):
        queue.add("vm", {"type": "UpdateConfig", "parameters": {"config": config}}, 0.0)
    answer = json.dumps(queue.claim("vm", Arrival(0.0, 1.0)))
    assert 512 * 1024 < len(answer) < 1024 * 1024


def test_the_lease_says_when_to_look_again(queue):
    assert queue.lease_left("vm", now=0.0) == float("inf")
    queue.add("vm", {"type": "Drain"}, at=0.0)
    assert queue.lease_left("vm", now=0.0) == 0.0
    queue.claim("vm", Arrival(0.0, now=10.0))
    assert queue.lease_left("vm", now=12.0) == 3.0
