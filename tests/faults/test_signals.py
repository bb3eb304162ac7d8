"""Signals at any moment of a life, and more of them than anybody would send.

FAULT_ROUNDS says how many lives; FAULT_SEED repeats them.
"""

from __future__ import annotations

import os
import random
import signal
import time

import psutil
import pytest

from tests.end_to_end.conftest import HELD, IDLE, Machine
from tests.faults import invariants
from tests.support import eventually

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "12"))

#: Before its handlers are there, a signal ends MIGlet as it ends any program.
BY_SIGNAL = (-signal.SIGTERM, -signal.SIGINT)


def gone(vm: Machine, seconds: float) -> int:
    """The exit status, when nothing of MIGlet and its runner is left."""
    status = vm.agent.wait(seconds)
    eventually(lambda: not vm.double.pids(), what="the end of the runner")
    ours = str(vm.agent.config)
    eventually(
        lambda: (
            not [
                each
                for each in psutil.process_iter(["cmdline"])
                if ours in (each.info["cmdline"] or [])
            ]
        ),
        what="the end of every child",
    )
    return status


def before_ours(vm: Machine, status: int) -> bool:
    """Whether the signal came before MIGlet ran: Python, too, is interrupted by it."""
    return status in BY_SIGNAL or "starts as" not in vm.agent.log()


@pytest.mark.slow
def test_a_signal_at_any_moment_ends_a_life_in_order(machine):
    seed = int(os.environ.get("FAULT_SEED", str(random.randrange(10**6))))
    print(f"FAULT_SEED={seed}")
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        vm = machine(IDLE, shutdown={"grace_period": "2s"})
        vm.agent.start()
        due = time.monotonic() + chance.uniform(0.0, 1.5)
        eventually(lambda due=due: time.monotonic() >= due)
        vm.agent.signal(chance.choice([signal.SIGTERM, signal.SIGINT]))
        status = gone(vm, 25)
        assert status == 0 or (before_ours(vm, status) and not vm.events())
        events = vm.events()
        invariants.whole(events)
        if status == 0 and events:
            assert events[-1]["type"] == "VMStopped"


@pytest.mark.slow
def test_a_second_signal_hastens_the_end(machine):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    vm.agent.signal(signal.SIGTERM)
    vm.agent.until("draining")
    began = time.monotonic()
    vm.agent.signal(signal.SIGINT)
    assert gone(vm, 20) == 0
    assert time.monotonic() - began < 8
    data = vm.events("JobCompleted")[0]["data"]
    assert (data["result"], data["cause"]) == ("failed", "shutdown")


@pytest.mark.slow
def test_many_signals_to_reload_at_once_disturb_nobody(machine):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    parent = psutil.Process(vm.agent.pid)
    most = 0
    for _ in range(300):
        vm.agent.signal(signal.SIGHUP)
        most = max(most, len(parent.children()))
    assert most <= len(vm.agent.workers()) + 2
    assert vm.agent.state() == "job_running"
    vm.double.finish_step()
    assert vm.agent.wait(30) == 0
    invariants.kept(vm.events(), vm)
