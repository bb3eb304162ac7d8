"""What must hold of a machine's life, whatever was done to it: one function a promise.

The double's truth is the judge: what was reported to the controller is held against it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import Machine

#: What the results that the double prints are to be reported as.
RESULTS = {"Succeeded": "succeeded", "Failed": "failed", "Canceled": "cancelled"}


def kept(events: list[dict[str, Any]], vm: Machine, jobs: int = 1) -> None:
    """Every promise about one whole life with so many jobs."""
    whole(events)
    complete(events, jobs)
    true_to(events, vm.double.truth("result"))
    one_registration_at_a_time(vm.double.registry()["history"])
    one_listener_at_a_time(vm.double.truth())


def whole(events: list[dict[str, Any]]) -> None:
    """In order, without a gap, each under an id of its own."""
    sequences = [each["sequence"] for each in events]
    assert sequences == list(range(1, len(events) + 1)), sequences
    assert len({each["id"] for each in events}) == len(events)


def complete(events: list[dict[str, Any]], jobs: int) -> None:
    """As many starts as jobs, and for each of them exactly one end, after it."""
    traces = {
        kind: [each["trace_id"] for each in events if each["type"] == kind]
        for kind in ("JobStarted", "JobCompleted")
    }
    assert len(traces["JobStarted"]) == jobs, [each["type"] for each in events]
    assert traces["JobStarted"] == traces["JobCompleted"]


def true_to(events: list[dict[str, Any]], truth: list[dict[str, Any]]) -> None:
    """The results are those that the runner reported, one by one."""
    reported = [e["data"]["result"] for e in events if e["type"] == "JobCompleted"]
    assert reported == [RESULTS[each["result"]] for each in truth]


def one_registration_at_a_time(history: list[dict[str, Any]]) -> None:
    """No registration is made while another one is there."""
    alive: set[str] = set()
    for each in history:
        if each["event"] in ("registered", "replaced"):
            alive.add(each["name"])
        elif "name" in each:
            alive.discard(each["name"])
        assert len(alive) <= 1, history


def one_listener_at_a_time(truth: list[dict[str, Any]]) -> None:
    """A runner is started only after the one before it has ended or was killed."""
    alive: set[int] = set()
    for each in truth:
        if each["what"] == "listener_start":
            alive = {pid for pid in alive if lives(pid)} | {each["pid"]}
        if each["what"] == "listener_exit":
            alive.discard(each["pid"])
        assert len(alive) <= 1, truth


def lives(pid: int) -> bool:
    """Whether there is such a process that is not just waiting to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def descriptors(pid: int) -> int:
    """How many files the process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
