"""The reference controller and its machines: heartbeats, health, tokens."""

from __future__ import annotations

import time

import pytest

from miglet.reference.fleet import Liveness, health
from tests.reference_process import (
    REGISTRATION_TOKENS,
    is_problem,
    post,
    post_event,
    running_controller,
)
from tests.reference_samples import event, heartbeat
from tests.support import eventually

pytestmark = pytest.mark.integration


def test_a_heartbeat_tells_the_machines_state(controller, vm):
    answer = post(controller, f"vms/{vm}/heartbeat", heartbeat(vm))
    assert answer.json() == {"acknowledged": True}
    machine = controller.vm(vm)
    assert (machine["state"], machine["health"]) == ("idle", "healthy")
    assert machine["pool_id"] == "pool-1"
    assert machine["last_heartbeat"] == heartbeat(vm)
    assert machine["counts"]["heartbeats"] == 1


def test_a_late_event_does_not_put_the_state_back(controller, vm):
    later = "2026-01-15T10:31:00Z"
    beat = heartbeat(vm, miglet_state="job_running", timestamp=later)
    post(controller, f"vms/{vm}/heartbeat", beat)
    post_event(controller, event(vm=vm))
    assert controller.vm(vm)["state"] == "job_running"
    newest = {**event(vm=vm, sequence=2), "timestamp": later, "state": "draining"}
    post_event(controller, newest)
    assert controller.vm(vm)["state"] == "draining"


def test_times_of_arrival_are_on_the_clock_of_this_machine(controller, vm):
    before = time.monotonic(), time.time()
    post(controller, f"vms/{vm}/heartbeat", heartbeat(vm))
    post_event(controller, event(vm=vm))
    after = time.monotonic(), time.time()
    for row in (*controller.heartbeats(vm), *controller.events(vm)):
        assert before[0] < row["received_mono"] < after[0]
        assert before[1] < row["received_at"] < after[1]


def test_a_machine_is_unhealthy_after_three_missed_heartbeats():
    liveness = Liveness(10.0, now=0.0, minimum_silence_seconds=0.0)
    liveness.record_heartbeat("vm", now=100.0)
    ages = {131.0: 2, 132.9: 2, 133.1: 3, 200.0: 9}
    assert {now: liveness.missed("vm", now) for now in ages} == ages
    assert [health(missed, ended=False) for missed in (0, 2, 3)] == [
        "healthy",
        "healthy",
        "unhealthy",
    ]
    liveness.record_heartbeat("vm", now=200.0)
    assert liveness.missed("vm", 201.0) == 0


def test_a_machine_is_measured_by_the_interval_that_its_heartbeats_name():
    liveness = Liveness(10.0, now=0.0, minimum_silence_seconds=60.0)
    liveness.record_heartbeat("slow", now=0.0, interval_seconds=300.0)
    liveness.record_heartbeat("quick", now=0.0, interval_seconds=1.0)
    assert liveness.missed("slow", 900.0) == 2
    assert liveness.missed("slow", 991.0) == 3
    # However short the interval is: no machine is given up before 60 seconds.
    assert liveness.missed("quick", 59.0) == 2
    assert liveness.missed("quick", 60.0) == 3


def test_a_machine_that_stopped_is_gone_at_once_and_one_that_will_is_not():
    assert health(missed=0, ended=True) == "gone"
    assert health(missed=9, ended=True) == "gone"


def test_after_a_restart_each_machine_gets_its_time_again():
    liveness = Liveness(10.0, now=1000.0, minimum_silence_seconds=0.0)
    assert liveness.missed("known before", 1010.0) == 0
    assert liveness.missed("known before", 1034.0) == 3


def test_a_first_call_is_not_a_heartbeat_but_starts_the_time():
    liveness = Liveness(10.0, now=0.0, minimum_silence_seconds=0.0)
    liveness.record_call("vm", now=100.0)
    liveness.record_call("vm", now=130.0)
    assert liveness.missed("vm", 134.0) == 3


def test_a_silent_machine_is_seen_as_such_and_comes_back(tmp_path, vm):
    limits = {"heartbeat_interval": 0.05, "minimum_silence": 0.15}
    with running_controller(tmp_path, **limits) as controller:
        beat = heartbeat(vm, interval_seconds=0.05)
        post(controller, f"vms/{vm}/heartbeat", beat)
        eventually(lambda: controller.vm(vm)["health"] == "unhealthy")
        post_event(controller, event("VMStopped", vm=vm))
        assert controller.vm(vm)["health"] == "gone"
        post_event(controller, event("VMStarted", vm=vm, sequence=2))
        assert controller.vm(vm)["health"] == "unhealthy"


def test_registration_tokens_are_handed_out_in_turn(tmp_path, vm):
    request = {
        "org_id": "org-1",
        "pool_id": "pool-1",
        "runner_group": "big",
        "labels": ["linux", "x64"],
    }
    with running_controller(tmp_path) as controller:
        path = f"vms/{vm}/registration-token"
        answers = [post(controller, path, request).json() for _ in range(3)]
        first, second = REGISTRATION_TOKENS
        tokens = [each["registration_token"] for each in answers]
        assert tokens == [first, second, first]
        assert answers[0]["labels"] == ["linux", "x64"]
        assert answers[0]["runner_group"] == "big"
        assert answers[0]["runner_url"] == "https://github.com/octo"
        assert first not in controller.log()


def test_without_tokens_to_hand_out_the_agent_learns_when_to_ask_again(tmp_path, vm):
    request = {"org_id": "o", "pool_id": "p", "runner_group": "g", "labels": []}
    removal = {"org_id": "o", "pool_id": "p"}
    options = {"registration_token_file": None, "removal_token_file": None}
    with running_controller(tmp_path, **options) as controller:
        answer = post(controller, f"vms/{vm}/registration-token", request)
        assert is_problem(answer, 503, "no tokens")
        assert answer.headers["Retry-After"] == "30"
        answer = post(controller, f"vms/{vm}/removal-token", removal)
        assert is_problem(answer, 404, "no removal tokens")
