"""What the arbiter says of the machine: the heartbeat and the status object."""

from __future__ import annotations

import dataclasses

import pytest
from jsonschema import Draft7Validator

from miglet.agent.status import (
    Knowledge,
    heartbeat_content,
    job_heartbeat,
    snapshot,
    status_object,
)
from miglet.controller.contract import schema
from miglet.journal.journal import Counts
from miglet.lifecycle.vm import USAGE, Job, Moment, State, Vm
from miglet.messages.events import Identity
from miglet.messages.facts import ControllerAnswered, ControllerFailed
from miglet.metrics.prometheus import AGENT
from tests.sample_settings import sample_settings

NOW = 500.0
MOMENT = Moment(1768473000.0, NOW)
COUNTS = Counts(pending=3, delivered=40, rejected=2, dropped=1, dropped_by_class={})
JOB = Job(
    run="0af7651916cd43dd8448eb211c80319c",
    source="hook",
    seen_at=1768472988.0,
    seen_now=NOW - 12.0,
    identity={"job_id": "555000111", "run_id": "777001", "name": "build"},
    usage={"cpu_seconds": 2.5},
    announced=True,
)


@pytest.fixture
def known():
    return Knowledge(
        settings=sample_settings({"heartbeat": {"interval": 20, "timeout": 60}}),
        identity=Identity("vm-1", "pool-1", "org-1", "0" * 32),
        origins=[],
        sources={},
        pid=4711,
        boot_id="8a6ba3f6-0000-4000-8000-000000000000",
        started_now=0.0,
        log_level="info",
    )


def heartbeat(known, vm=None):
    content = heartbeat_content(vm or Vm("vm-1-8a6ba3f6"), known, {}, COUNTS, MOMENT)
    return {**content, "timestamp": "2026-01-15T10:30:00.123Z"}


def busy(**changes):
    return Vm("vm-1-8a6ba3f6", state=State.JOB_RUNNING, job=JOB, **changes)


def test_a_heartbeat_has_all_that_the_contract_names_and_nothing_else(known):
    described = schema("heartbeat")
    sent = heartbeat(known, busy())
    Draft7Validator(described).validate(sent)
    assert set(sent) == set(described["properties"])
    assert set(sent["current_job"]) == set(
        described["properties"]["current_job"]["properties"]
    )


def test_a_heartbeat_says_which_boot_how_often_and_what_became_of_events(known):
    sent = heartbeat(known)
    assert sent["boot_id"] == known.boot_id
    assert sent["interval_seconds"] == 20
    assert (sent["events_pending"], sent["events_rejected"]) == (3, 2)
    assert sent["events_dropped"] == 1
    known.settings = sample_settings({"heartbeat": {"interval": 0.5}})
    assert heartbeat(known)["interval_seconds"] == 0.5


def test_a_heartbeat_says_whether_the_controller_is_reachable(known):
    known.vm_health = {"network": {"receive_bytes": 7}}

    def network():
        return heartbeat(known)["vm_health"]["network"]

    assert network() == {"receive_bytes": 7, "controller": "unreachable"}
    known.note_answer(ControllerAnswered("events", 0.0), NOW - 59.0)
    assert network()["controller"] == "reachable"
    known.note_answer(ControllerAnswered("events", 0.0), NOW - 61.0)
    assert network()["controller"] == "unreachable"


def test_a_heartbeat_has_the_jobs_latest_sample_and_status(known):
    job = heartbeat(known, busy())["current_job"]
    assert job["resource_usage"] == {
        "cpu_seconds": 2.5,
        "max_memory_bytes": None,
        "io_read_bytes": None,
        "io_write_bytes": None,
    }
    assert (job["status"], job["elapsed_seconds"]) == ("running", 12.0)
    stopping = busy(stopped_by="shutdown")
    assert heartbeat(known, stopping)["current_job"]["status"] == "stopping"


def test_a_jobs_heartbeat_has_its_status(known):
    assert (
        job_heartbeat(busy(), known, MOMENT)["envelope"]["data"]["status"] == "running"
    )
    stopping = job_heartbeat(busy(stopped_by="timeout"), known, MOMENT)
    assert stopping["envelope"]["data"]["status"] == "stopping"
    Draft7Validator(schema("event")).validate(stopping["envelope"])


def test_a_job_that_was_not_announced_yet_has_no_heartbeat(known):
    quiet = busy().replace(job=dataclasses.replace(JOB, announced=False))
    assert job_heartbeat(quiet, known, MOMENT) is None


def test_an_error_of_one_call_is_shown_until_that_call_succeeds(known):
    def shown():
        status = status_object(Vm("n"), known, {}, COUNTS, None, MOMENT)
        return status["controller"]["last_error"]

    assert shown() is None
    known.note_failure(
        ControllerFailed("commands", "transient", "GET commands: 500", 1.0)
    )
    known.note_answer(ControllerAnswered("heartbeat", 0.0), NOW)
    assert shown() == "GET commands: 500"
    known.note_failure(ControllerFailed("events", "transient", "POST events: 503", 1.0))
    assert shown() == "POST events: 503"
    known.note_answer(ControllerAnswered("events", 0.0), NOW)
    assert shown() == "GET commands: 500"
    known.note_answer(ControllerAnswered("commands", 0.0), NOW)
    assert shown() is None


def test_the_snapshot_has_a_value_for_every_metric_of_the_agent(known):
    known.note_answer(ControllerAnswered("heartbeat", -1.5), NOW - 5.0)
    worker = {"command-poller": {"healthy": True, "restarts": 0}}
    used = dict.fromkeys(USAGE, 1)
    vm = busy().replace(job=dataclasses.replace(JOB, usage=used))
    shown = {**snapshot(vm, known, worker, COUNTS, MOMENT), "now": NOW}
    values = {series.name: series.values(shown) for series in AGENT}
    unknown = {name for name, found in values.items() if None in found.values()}
    assert unknown == set(), "they have no value in snapshot() of miglet.agent.status"
    assert all(values.values())
    assert values["miglet_clock_offset_seconds"] == {(): -1.5}


@pytest.mark.parametrize("state", State)
def test_the_snapshot_says_which_state_it_is_and_whether_that_is_ready(known, state):
    shown = snapshot(Vm("n", state=state), known, {}, COUNTS, MOMENT)
    assert shown["states"] == {each.value: each is state for each in State}
    assert shown["ready"] == (state.value in ("idle", "job_running"))
