"""Events and their envelope: wire names, keys, and whose they are."""

from __future__ import annotations

import uuid

from miglet.messages.events import (
    EVENTS,
    Error,
    Identity,
    JobReference,
    JobStarted,
    seal,
)

IDENTITY = Identity("vm-1", "pool-1", "org-1", "0" * 32)
FAULT = Error("user", "code", "message", "component")


def test_an_event_of_the_machine_is_sealed_with_its_identity():
    sealed = seal(FAULT, IDENTITY, None, "idle", at=1768473000.123)
    assert uuid.UUID(sealed.pop("id")).version == 4
    assert sealed == {
        "schema": 1,
        "sequence": None,
        "type": "Error",
        "timestamp": "2026-01-15T10:30:00.123Z",
        "vm_id": "vm-1",
        "pool_id": "pool-1",
        "org_id": "org-1",
        "job_id": None,
        "run_id": None,
        "trace_id": "0" * 32,
        "state": "idle",
        "data": {
            "category": "user",
            "code": "code",
            "message": "message",
            "component": "component",
            "hint": "",
        },
        "metadata": {},
    }


def test_an_event_of_a_job_has_the_jobs_ids_and_trace():
    sealed = seal(FAULT, IDENTITY, JobReference("7", "8", "f" * 32), "idle", at=0.0)
    assert (sealed["job_id"], sealed["run_id"]) == ("7", "8")
    assert sealed["trace_id"] == "f" * 32


def test_each_sealed_event_has_an_id_of_its_own():
    ids = {seal(FAULT, IDENTITY, None, "idle", 0.0)["id"] for _ in range(100)}
    assert len(ids) == 100


def test_the_wire_name_of_an_event_is_that_of_its_class():
    assert EVENTS["JobStarted"] is JobStarted
    assert all(EVENTS[name].__name__ == name for name in EVENTS)
    assert FAULT.type == "Error"
