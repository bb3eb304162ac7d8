"""A run in a transient unit as its heirs know it; for `tests/systemd/box`."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from miglet.runner.launcher import (
    RUNNER_UNIT,
    Launcher,
    LaunchSpec,
    TransientUnit,
)
from miglet.runner.records import read_record
from miglet.runner.run import Run
from tests.agent_process import IN_UNITS
from tests.support import eventually

pytestmark = [
    pytest.mark.units,
    pytest.mark.skipif(not IN_UNITS, reason="needs tests/systemd/box"),
]


def counts_memory() -> bool:
    """Whether control groups of version 2 have limits and figures of memory here."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    return controllers.exists() and "memory" in controllers.read_text().split()


def shown(unit: str, name: str) -> str:
    """A property of a unit, as systemd tells it."""
    command = ["systemctl", "show", "--value", "--property", name, unit]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    return completed.stdout.strip()


def launched(folder: Path, kind: TransientUnit, script: str) -> Run:
    """A run of this shell script, in a unit."""
    program = folder / "listener"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    spec = LaunchSpec("run-1", "vm-1", folder, (str(program),), {})
    return Launcher(folder / "runtime", kind.start).start(spec)


def test_a_run_knows_its_unit_by_its_invocation_for_life_and_after(tmp_path):
    run = launched(tmp_path, RUNNER_UNIT, "read x </dev/zero; exit 7")
    unit = run.unit
    assert unit and unit.present() and run.ended() is None
    assert unit.invocation_id == shown(unit.name, "InvocationID")
    assert unit.group == "/sys/fs/cgroup" + shown(unit.name, "ControlGroup")
    assert Launcher(tmp_path / "runtime").find() == run
    assert run.kill() and not unit.present()
    assert read_record(run.folder / "exit.json")["signal"] == signal.SIGKILL
    record = read_record(run.folder / "stop.json")
    assert record["invocation_id"] == unit.invocation_id
    assert (record["code"], record["status"]) == ("exited", "137")


@pytest.mark.skipif(not counts_memory(), reason="no memory controller in version 2")
def test_a_step_that_is_killed_for_want_of_memory_is_counted(tmp_path):
    limits = ("--property=MemoryMax=64M", "--property=MemorySwapMax=0")
    small = TransientUnit("miglet-small", (*RUNNER_UNIT.options, *limits))
    greedy = "/usr/bin/python3 -c 'bytearray(200 << 20)'; exit $?"
    run = launched(tmp_path, small, greedy)
    status = eventually(run.ended, what="the end of the run")
    assert status.exit_code == 137
    assert run.oom_kills() >= 1
    assert run.kill() and run.oom_kills() >= 1


def test_a_unit_is_active_for_as_long_as_the_worker_of_a_dead_listener(tmp_path):
    worker = tmp_path / "Runner.Worker"
    worker.write_text("#!/bin/sh\nwhile ! [ -e go ]; do sleep 0.01; done; exit 102\n")
    worker.chmod(0o755)
    run = launched(tmp_path, RUNNER_UNIT, "./Runner.Worker & wait")
    found = eventually(run.worker, what="the Worker")
    run.listener.signal(signal.SIGKILL)
    assert eventually(run.ended, what="the Listener's end").signal == signal.SIGKILL
    assert run.orphaned() and shown(run.unit.name, "ActiveState") == "active"
    (tmp_path / "go").touch()
    status = eventually(found.exit_status, what="the Worker's exit status")
    assert status.exit_code == 102
    eventually(lambda: not run.unit.present(), what="the end of the unit")
    found.close()
