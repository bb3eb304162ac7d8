"""The reference controller and events: stored once, in order, or refused."""

from __future__ import annotations

import json
import resource
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.reference_process import (
    is_problem,
    post,
    post_event,
    running_controller,
)
from tests.reference_samples import EVENT_DATA, event, heartbeat

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("type", EVENT_DATA)
def test_an_event_of_every_type_is_stored_as_it_was_sent(controller, vm, type):
    sent = event(type, vm=vm)
    answer = post_event(controller, sent)
    assert answer.json() == {"acknowledged": True, "duplicate": False}
    (row,) = controller.ask(f"vms/{vm}/events")["events"]
    assert row["event"] == sent


def test_what_a_newer_agent_adds_is_stored_like_anything_else(controller, vm):
    sent = event(vm=vm)
    sent |= {"type": "RunnerUpdated", "state": "updating", "agent": {"version": 2}}
    assert post_event(controller, sent).status_code == 200
    beat = heartbeat(vm, miglet_state="updating", runner_state="new", more=[1])
    assert post(controller, f"vms/{vm}/heartbeat", beat).status_code == 200
    (row,) = controller.ask(f"vms/{vm}/events")["events"]
    assert row["event"] == sent
    assert controller.vm(vm)["last_heartbeat"] == beat


def test_a_repeated_event_is_acknowledged_and_stored_once(controller, vm):
    sent = event(vm=vm)
    post_event(controller, sent)
    reordered = dict(reversed(sent.items()))
    answer = post_event(controller, reordered)
    assert answer.status_code == 200
    assert answer.json() == {"acknowledged": True, "duplicate": True}
    assert len(controller.events(vm)) == 1
    assert controller.vm(vm)["counts"]["duplicates"] == 1


def test_an_id_with_another_content_is_refused(controller, vm):
    sent = event(vm=vm)
    post_event(controller, sent)
    for changed in ({**sent, "sequence": 2}, {**sent, "metadata": {"a": 1}}):
        assert is_problem(post_event(controller, changed), 422, "another content")
    (stored,) = controller.events(vm)
    assert stored["sequence"] == 1


def test_true_and_one_are_different_contents(controller, vm):
    sent = {**event(vm=vm), "metadata": {"a": 1}}
    post_event(controller, sent)
    answer = post_event(controller, {**sent, "metadata": {"a": True}})
    assert is_problem(answer, 422, "another content")


def test_the_same_id_of_two_machines_is_two_events(controller, vm):
    first, other = event(vm=vm), event(vm=f"{vm}-b")
    other["id"] = first["id"]
    assert post_event(controller, first).json()["duplicate"] is False
    assert post_event(controller, other).json()["duplicate"] is False


def test_the_idempotency_key_is_the_events_id(controller, vm):
    sent = event(vm=vm)
    other = str(uuid.uuid4())
    assert is_problem(post_event(controller, sent, other), 422, "Idempotency-Key")
    answer = post(controller, f"vms/{vm}/events", sent)
    assert is_problem(answer, 400, "Idempotency-Key is missing")
    assert controller.events(vm) == []


def test_an_event_of_another_machine_is_refused(controller, vm):
    sent = event(vm="vm-other")
    answer = post(
        controller, f"vms/{vm}/events", sent, **{"Idempotency-Key": sent["id"]}
    )
    assert is_problem(answer, 422, "in the path")


def test_a_refusal_names_the_field_and_is_counted(controller, vm):
    spoilt = event("JobCompleted", vm=vm, result=7)
    answer = post_event(controller, spoilt)
    assert is_problem(answer, 422, "data.result: 7 is not of type 'string'")
    assert answer.json()["errors"][0]["field"] == "data.result"
    counts = controller.vm(vm)["counts"]
    assert (counts["refused"], counts["events"]) == (1, {})


@pytest.mark.parametrize(
    "body, detail",
    [
        (b"", "not JSON"),
        (b"<html>portal</html>", "not JSON"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 10_000, "not JSON"),
    ],
)
def test_a_body_that_is_no_json_is_refused(controller, vm, body, detail):
    url = controller.url(f"vms/{vm}/heartbeat")
    answer = controller.session.post(url, data=body, timeout=10)
    assert is_problem(answer, 400, detail)


@pytest.mark.parametrize("body", [None, [], "text", 7, {}])
def test_json_that_is_no_event_is_refused(controller, vm, body):
    url = controller.url(f"vms/{vm}/events")
    answer = controller.session.post(url, data=json.dumps(body), timeout=10)
    assert is_problem(answer, 422, "not a valid event")


@pytest.mark.parametrize("metadata", [{"\ud800": ""}, {"": "\udfff"}], ids=ascii)
def test_half_of_a_surrogate_pair_is_no_text_that_could_be_stored(
    controller, vm, metadata
):
    """RFC 7493; MIGlet never sends one."""
    answer = post_event(controller, {**event(vm=vm), "metadata": metadata})
    assert is_problem(answer, 400, "surrogate")
    assert controller.events(vm) == []


def test_a_body_of_more_than_a_mebibyte_is_refused(controller, vm):
    sent = {**event(vm=vm), "metadata": {"a": "x" * (1 << 20)}}
    assert is_problem(post_event(controller, sent), 413, "body size 1048576")


def test_gaps_are_counted_from_one_and_close_when_filled(controller, vm):
    for sequence in (2, 3, 6):
        post_event(controller, event(vm=vm, sequence=sequence))
    post_event(controller, event("JobHeartbeat", vm=vm))
    gaps = controller.vm(vm)["gaps"]
    assert gaps == [{"first": 1, "last": 1}, {"first": 4, "last": 5}]
    assert f"{vm}: events 4 to 5 missing" in controller.log()
    for sequence in (1, 4, 5):
        post_event(controller, event(vm=vm, sequence=sequence))
    assert controller.vm(vm)["gaps"] == []


def test_a_sequence_that_comes_twice_is_reported(controller, vm):
    for _ in range(3):
        post_event(controller, event(vm=vm, sequence=1))
    assert controller.vm(vm)["repeated_sequences"] == 2


def test_events_are_read_on_from_a_position(controller, vm):
    for sequence in range(1, 4):
        post_event(controller, event(vm=vm, sequence=sequence))
    first = controller.ask(f"vms/{vm}/events")
    rest = controller.ask(f"vms/{vm}/events", after=first["events"][0]["position"])
    assert [row["event"]["sequence"] for row in rest["events"]] == [2, 3]
    assert rest["next"] == first["next"]
    end = controller.ask(f"vms/{vm}/events", after=rest["next"])
    assert end == {"vm_id": vm, "events": [], "next": rest["next"]}


def test_who_waits_for_an_event_gets_it_at_once(controller, vm):
    post_event(controller, event(vm=vm))
    after = controller.events(vm)[-1]["position"]
    path = f"vms/{vm}/events"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(controller.ask, path, after=after, wait=20)
        post_event(controller, event("JobStarted", vm=vm, sequence=2))
        (row,) = waiting.result(10)["events"]
    assert row["event"]["sequence"] == 2
    assert controller.wait_for(vm, "JobStarted")["position"] == row["position"]


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", "wait=soon", "wait=nan", "after=" + "9" * 30]
)
def test_a_query_that_cannot_be_read_is_refused(controller, vm, query):
    post_event(controller, event(vm=vm))
    url = controller.url(f"vms/{vm}/events?{query}")
    assert is_problem(controller.session.get(url, timeout=10), 400, query[:4])


def test_an_unknown_machine_is_not_found(controller):
    for path in ("vms/nobody", "vms/nobody/events", "vms/nobody/heartbeats"):
        answer = controller.session.get(controller.url(path), timeout=10)
        assert is_problem(answer, 404, "no machine 'nobody'")


@pytest.mark.parametrize("name", ["a%20b", "a%2Fb", "%C3%A4", "a" * 129])
def test_a_machines_name_is_checked(controller, name):
    answer = post(controller, f"vms/{name}/heartbeat", heartbeat())
    assert is_problem(answer, 400, "vm_id is")


def test_paths_and_methods_that_are_not_there_are_problems(controller, vm):
    answer = controller.session.get(controller.url("nothing"), timeout=10)
    assert is_problem(answer, 404, "nothing at /api/v1/nothing")
    answer = controller.session.delete(controller.url(f"vms/{vm}/events"), timeout=10)
    assert is_problem(answer, 405, "DELETE is not allowed")
    assert answer.headers["Allow"] == "GET,POST"


def test_what_was_acknowledged_outlives_a_kill(tmp_path, vm):
    sent = [event(vm=vm, sequence=n) for n in range(1, 21)]
    with running_controller(tmp_path) as controller:
        for each in sent:
            assert post_event(controller, each).status_code == 200
        controller.process.send_signal(signal.SIGKILL)
        controller.process.wait(10)
    with running_controller(tmp_path) as controller:
        assert post_event(controller, sent[-1]).json()["duplicate"] is True
        stored = controller.events(vm)
        assert [each["id"] for each in stored] == [each["id"] for each in sent]


def test_a_full_disk_is_said_to_be_so_and_nothing_is_acknowledged(tmp_path, vm):
    with running_controller(tmp_path) as controller:
        pid, limit = controller.process.pid, resource.RLIMIT_FSIZE
        _, hard = resource.prlimit(pid, limit)
        resource.prlimit(pid, limit, (300_000, hard))
        large = {**event(vm=vm), "metadata": {"a": "x" * 200_000}}
        first = post_event(controller, large)
        second = post_event(controller, {**large, "id": str(uuid.uuid4())})
        assert is_problem(second, 503, "nothing was stored")
        assert second.headers["Retry-After"] == "5"
        resource.prlimit(pid, limit, (hard, hard))
        assert len(controller.events(vm)) == (first.status_code == 200)
        assert post_event(controller, event(vm=vm, sequence=2)).status_code == 200


def test_events_of_many_machines_at_once_are_all_stored(controller):
    machines = [f"vm-{uuid.uuid4()}" for _ in range(8)]

    def report(name: str) -> None:
        with requests.Session() as session:
            session.headers.update(controller.session.headers)
            session.trust_env = False
            for sequence in range(1, 31):
                sent = event(vm=name, sequence=sequence)
                url = controller.url(f"vms/{name}/events")
                key = {"Idempotency-Key": sent["id"]}
                answer = session.post(url, json=sent, headers=key, timeout=30)
                assert answer.status_code == 200

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(report, machines))
    for name in machines:
        found = [each["sequence"] for each in controller.events(name)]
        assert found == list(range(1, 31))
