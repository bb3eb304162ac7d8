"""Nobody reads what MIGlet writes, or nobody can."""

from __future__ import annotations

import sys

import psutil
import pytest

from tests.end_to_end.conftest import job
from tests.faults import invariants
from tests.soak import pss_kilobytes

#: What all of MIGlet may take under load.
MOST_KILOBYTES = 100 * 1024

#: Executes what follows with a stdout and stderr that take nothing (any more).
START = """
import fcntl, os, sys
reading, writing = os.pipe()
fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
{before}
os.dup2(writing, 1)
os.dup2(writing, 2)
os.set_inheritable(reading, True)
os.execv(sys.argv[1], sys.argv[1:])
"""

BLOCKED = "os.write(writing, bytes(4096))"
BROKEN = "os.close(reading); reading = os.open(os.devnull, os.O_RDONLY)"
CLOSED = "os.close(writing); writing = reading"


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(BLOCKED, id="nobody reads"),
        pytest.param(BROKEN, id="broken pipe", marks=pytest.mark.slow),
        pytest.param(CLOSED, id="not writable", marks=pytest.mark.slow),
    ],
)
def test_a_life_does_not_wait_for_a_reader_of_its_log(machine, wrapped, output):
    program = START.format(before=output)
    vm = wrapped(machine(job("Failed")), sys.executable, "-c", program)
    vm.agent.start()
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)


@pytest.mark.slow
def test_a_runner_that_floods_its_output_costs_neither_memory_nor_result(machine):
    vm = machine({"scenario": "flood", "lines": 200_000, "hold": True})
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    tree = [psutil.Process(vm.agent.pid), *vm.agent.workers().values()]
    assert sum(map(pss_kilobytes, tree)) < MOST_KILOBYTES
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)
