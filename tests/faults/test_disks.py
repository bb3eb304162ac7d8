"""Disks that are full, read-only or have lost what was written, under a whole life."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import HELD, IDLE, Machine, job
from tests.faults import invariants
from tests.journal.test_failover import fill, mounted
from tests.support import eventually

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small disk of its own."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=24m", "none") as place:
        yield place


def ended_well(vm: Machine) -> None:
    assert vm.agent.wait() == 0, vm.agent.end_of_log()
    invariants.kept(vm.events(), vm)


def codes(vm: Machine) -> list[str]:
    return [each["data"]["code"] for each in vm.events("Error")]


@as_root
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "job"])
def test_a_full_disk_costs_no_event(machine, disk, moment):
    vm = machine(HELD, paths={"state": str(disk)})
    if moment == "start":
        fill(disk)
    vm.agent.start()
    vm.event("RunnerRegistered")
    if moment == "job":
        fill(disk)
    vm.double.release_job()
    vm.event("JobStarted")
    assert vm.agent.status()["degraded"] == (moment == "start")
    vm.double.finish_step()
    ended_well(vm)


@as_root
@pytest.mark.slow
def test_a_disk_that_becomes_read_only_is_reported_and_costs_no_event(machine, disk):
    vm = machine(HELD, paths={"state": str(disk)})
    vm.agent.start()
    vm.event("RunnerRegistered")
    remount = ["mount", "-o", "remount,ro", str(disk)]
    vm.agent.kill()
    subprocess.run(remount, check=True)
    vm.agent.start()
    vm.agent.until("idle")
    assert vm.agent.status()["degraded"]
    vm.double.release_job()
    vm.double.finish_step()
    ended_well(vm)


WRITING = ("pwrite64", "fdatasync")
READING = ("pread64,read,sendfile,copy_file_range", "openat")


def failing(vm: Machine, calls: str) -> list[str]:
    """A tracer that has these calls fail for the journal's files, as a device would."""
    journal = vm.agent.folder / "state" / "journal.db"
    files = [f"--trace-path={journal}{ending}" for ending in ("", "-wal", "-sequence")]
    return ["strace", "-qq", *files, f"--inject={calls}:error=EIO"]


@contextlib.contextmanager
def traced(vm: Machine, command: list[str]) -> Iterator[None]:
    """The agent's parent, under this tracer from now on."""
    assert vm.agent.process is not None
    pid = vm.agent.process.pid
    status = Path(f"/proc/{pid}/status")
    tracer = subprocess.Popen([*command, "-o", os.devnull, "-p", str(pid)])
    try:
        eventually(lambda: "TracerPid:\t0" not in status.read_text())
        yield
    finally:
        tracer.terminate()
        tracer.wait(5)


needs_tracer = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("strace"), reason="needs root and strace"
)


@needs_tracer
@pytest.mark.slow
@pytest.mark.parametrize("calls", WRITING)
def test_a_device_that_begins_to_fail_is_reported_and_costs_no_event(machine, calls):
    vm = machine({**HELD, "result": "Failed"})
    vm.agent.start()
    vm.event("RunnerRegistered")
    with traced(vm, failing(vm, calls)):
        vm.double.release_job()
        vm.event("JobStarted")
        assert vm.agent.status()["degraded"]
        vm.double.finish_step()
        ended_well(vm)


@needs_tracer
@pytest.mark.slow
def test_a_disk_that_takes_a_second_for_everything_costs_only_time(machine):
    vm = machine({**HELD, "result": "Failed"})
    vm.agent.start()
    vm.event("RunnerRegistered")
    with traced(vm, ["strace", "-qq", "--inject=fdatasync,fsync:delay_enter=1000000"]):
        vm.double.release_job()
        vm.event("JobStarted")
        workers = vm.agent.status()["workers"].values()
        assert [each["restarts"] for each in workers] == [0] * 4
        vm.double.finish_step()
        ended_well(vm)


@needs_tracer
@pytest.mark.slow
@pytest.mark.parametrize("calls", [*WRITING, *READING])
def test_a_device_that_fails_from_the_start_costs_neither_runner_nor_job(
    machine, wrapped, calls
):
    vm = machine({**HELD, "result": "Failed"})
    vm.agent.start()
    vm.event("RunnerRegistered")
    eventually(lambda: not vm.agent.status()["events"]["pending"])
    vm.agent.kill()
    vm = wrapped(vm, *failing(vm, calls), "-D", "-o", os.devnull)
    vm.agent.start()
    vm.agent.until("idle")
    assert vm.agent.status()["degraded"]
    vm.double.release_job()
    vm.event("JobStarted")
    vm.double.finish_step()
    ended_well(vm)
    assert ("journal_reset" in codes(vm)) == (calls in READING)


DAMAGES = {
    "garbage": lambda path: path.write_bytes(os.urandom(100_000)),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, 100),
    "torn log": lambda path: torn(path.with_name(path.name + "-wal")),
}


def torn(log: Path) -> None:
    """The log's end is missing, and garbage is in its place."""
    size = log.stat().st_size
    os.truncate(log, max(size // 2, 32))
    with log.open("ab") as file:
        file.write(os.urandom(1000))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_that_is_damaged_in_between_costs_neither_runner_nor_numbers(
    machine, damage
):
    vm = machine(HELD)
    vm.agent.start()
    vm.event("RunnerRegistered")
    eventually(lambda: not vm.agent.status()["events"]["pending"])
    vm.agent.kill()
    DAMAGES[damage](vm.agent.folder / "state" / "journal.db")
    vm.agent.start()
    vm.agent.until("idle")
    vm.double.release_job()
    eventually(lambda: vm.double.truth("step_start"), what="the step")
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    events = vm.events()
    invariants.whole(events)
    invariants.complete(events, 1)
    invariants.true_to(events, vm.double.truth("result"))
    invariants.one_listener_at_a_time(vm.double.truth())
    assert damage == "torn log" or "journal_reset" in codes(vm)


@pytest.mark.slow
def test_a_journal_that_is_lost_at_rest_is_reported(machine):
    vm = machine(job("Failed"), IDLE, runner={"idle_timeout": "1500ms"})
    vm.agent.start()
    assert vm.agent.wait() == 0
    (vm.agent.folder / "state" / "journal.db").write_bytes(b"\0" * 5000)
    vm.agent.start()
    assert vm.agent.wait() == 0
    invariants.whole(vm.events())
    invariants.complete(vm.events(), 1)
    assert codes(vm) == ["journal_reset"]
