"""Workers that cannot live, and a machine on which nothing more can be started."""

from __future__ import annotations

import os
import resource
import signal

import psutil
import pytest

from tests.end_to_end.conftest import HELD, IDLE, Machine
from tests.faults import invariants
from tests.faults.cgroups import as_root, group_of
from tests.faults.death_points import deadly
from tests.support import eventually


def restarts(vm: Machine, name: str) -> int:
    return vm.agent.status()["workers"][name]["restarts"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics-sampler", "command-poller"])
def test_a_worker_that_always_dies_is_reported_and_the_job_goes_on(machine, name):
    vm = machine(HELD)
    deadly(vm, f"{name}.opening 1+ exit")
    vm.agent.start()
    vm.event("RunnerRegistered")
    error = vm.event("Error")["data"]
    assert error["code"] == "worker_crash_loop"
    assert error["message"].startswith(f"{name} died 5 times in a row: exit status 1")
    assert vm.agent.status()["degraded"]
    assert not vm.agent.status()["workers"][name]["healthy"]
    told_often = restarts(vm, name)
    eventually(
        lambda: not vm.controller.heartbeats(vm.vm)[-1]["workers"][name]["healthy"],
        what="a heartbeat that tells of it",
    )
    assert told_often < 9
    vm.double.release_job()
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)


@pytest.mark.slow
def test_a_sender_that_always_dies_leaves_every_event_on_disk(machine):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.agent.kill()
    plan = deadly(vm, "heartbeat-sender.opening 1+ exit")
    vm.agent.start()
    vm.double.release_job()
    vm.double.finish_step()
    assert vm.agent.wait() == 75
    assert "JobCompleted" not in vm.types()
    plan.write_text("")
    vm.agent.start()
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)
    assert vm.types()[-1] == "VMStopped"
    assert vm.types().count("RunnerRegistered") == 1


def lowest_free(pid: int) -> int:
    """The number that the process's next descriptor will have."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return min(set(range(len(taken) + 1)) - taken)


@pytest.mark.parametrize(
    "free",
    [pytest.param(0), *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 9))],
)
def test_without_descriptors_a_worker_is_replaced_later(machine, free):
    vm = machine(IDLE)
    vm.agent.start()
    vm.agent.until("idle")
    before = vm.agent.workers()["metrics-sampler"].pid
    parent = psutil.Process(vm.agent.pid)
    children = len(parent.children())
    usual = resource.prlimit(vm.agent.pid, resource.RLIMIT_NOFILE)
    tight = lowest_free(vm.agent.pid) + free
    resource.prlimit(vm.agent.pid, resource.RLIMIT_NOFILE, (tight, usual[1]))
    os.kill(before, signal.SIGKILL)
    eventually(
        lambda: before not in {each.pid for each in parent.children()}, what="a burial"
    )
    eventually(lambda: parent.cpu_percent(0.2) < 50, what="a parent that does not spin")
    resource.prlimit(vm.agent.pid, resource.RLIMIT_NOFILE, usual)
    eventually(
        lambda: vm.agent.workers().get("metrics-sampler") is not None,
        20,
        "another worker",
    )
    eventually(lambda: len(parent.children()) == children, what="no more than before")
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0


@as_root
def test_when_nothing_can_be_forked_the_others_go_on(machine):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    with group_of("pids") as group:
        group.take(vm.agent.pid)
        group.limit(1)
        victim = vm.agent.workers()["metrics-sampler"]
        victim.kill()
        eventually(lambda: "cannot fork" in vm.agent.log(), what="a fork that fails")
        vm.double.release_job()
        vm.event("JobStarted")
        assert vm.agent.state() == "job_running"
        group.limit("max" if group.limit_path.name == "pids.max" else -1)
        eventually(lambda: "metrics-sampler" in vm.agent.workers(), 40, "a new one")
        vm.double.finish_step()
        assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)
