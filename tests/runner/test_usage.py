"""What a run uses: figures that mean what they say, and sampling that costs little."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest

from miglet.runner.procfs import all_processes, snapshot
from miglet.runner.run import Run
from miglet.runner.unit import Unit
from miglet.runner.usage import Usage, UsageSampler, memory_bytes, usage_of
from tests.launching import Place, launching
from tests.paths import PYTHON
from tests.support import eventually

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture
def place() -> Iterator[Place]:
    with launching() as made:
        yield made


def test_a_peak_never_falls():
    high, low = Usage(2.0, 100, 7, 0), Usage(1.0, 200, 3, 9)
    assert low.peak(high) == Usage(2.0, 200, 7, 9)


def test_the_sampler_keeps_the_peak_and_its_distance():
    measured = [Usage(1.0, 50, 0, 0), Usage(2.0, 10, 0, 0)]
    sampler = UsageSampler(lambda: measured.pop(0))
    assert sampler.due_in(100.0) == 0.0
    assert sampler.sample(100.0, pause=2.0) == Usage(1.0, 50, 0, 0)
    assert sampler.due_in(101.5) == pytest.approx(0.5)
    assert sampler.sample(102.0, pause=2.0) == sampler.peak == Usage(2.0, 50, 0, 0)


def test_samples_that_take_long_are_taken_rarely():
    def slow() -> Usage:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return Usage()

    sampler = UsageSampler(slow)
    sampler.sample(0.0, pause=2.0)
    assert sampler.due_in(0.0) >= 5.0


def test_a_wait_is_no_cost():
    sampler = UsageSampler(lambda: eventually(lambda: Usage(1.0)))
    sampler.sample(0.0, pause=2.0)
    assert sampler.due_in(0.0) == 2.0


@contextmanager
def process_with(memory_bytes: int, cpu_seconds: float) -> Iterator[int]:
    """A process that has used this and waits."""
    code = f"""
import sys, time
held = b"1" * {memory_bytes}
while time.process_time() < {cpu_seconds}:
    pass
print("ready", flush=True)
sys.stdin.read()
"""
    command = [PYTHON, "-ISc", code]
    # Not forked: what a child has of this process would count as its own.
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout and process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def test_memory_is_the_resident_set_and_cpu_time_is_reported_to_the_millisecond():
    with process_with(50 * MIB, 0.2) as pid:
        used = usage_of(snapshot(), [pid], None)
    assert 50 * MIB < used.max_memory_bytes < 150 * MIB
    assert 0.19 <= used.cpu_seconds < 2.0
    assert used.cpu_seconds == round(used.cpu_seconds, 3)


def test_what_processes_map_from_files_counts_once():
    code = ["/usr/bin/python3", "-IS", "-c", "print('up', flush=True); input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    several = [subprocess.Popen(code, **pipes) for _ in range(4)]
    for each in several:
        each.stdout.read(2)
    pids = [each.pid for each in several]
    alone, together = memory_bytes(pids[:1]), memory_bytes(pids)
    for each in several:
        each.communicate(b"\n")
    assert alone < together < 3.5 * alone


def test_of_the_shim_only_what_it_has_collected_counts():
    with process_with(0, 0.2) as pid:
        assert usage_of(snapshot(), [], pid).cpu_seconds == 0.0


def test_a_process_that_nobody_has_waited_for_has_used_its_time():
    code = "while __import__('time').process_time() < 0.2: pass"
    with subprocess.Popen([PYTHON, "-ISc", code]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        used = usage_of(all_processes(), [process.pid], None)
    assert used.cpu_seconds >= 0.19
    assert used.max_memory_bytes == 0


def test_a_process_that_is_hidden_or_gone_has_written_nothing():
    people = {1 << 30: next(iter(snapshot().values()))}
    used = usage_of(people, list(people), None)
    assert (used.io_read_bytes, used.io_write_bytes) == (0, 0)


def test_no_process_is_looked_at_where_the_group_tells_everything(
    place, tmp_path, monkeypatch
):
    run = place.start("exec sleep 60")
    files = {
        "cpu.stat": "usage_usec 2500000\n",
        "memory.current": "1000\n",
        "memory.stat": "inactive_file 300\n",
        "io.stat": "8:0 rbytes=7 wbytes=11\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(
        "miglet.runner.run.all_processes", lambda: pytest.fail("processes are read")
    )
    assert with_group(run, tmp_path).usage() == Usage(2.5, 700, 7, 11)


def test_what_the_group_does_not_tell_is_counted(place, tmp_path):
    run = place.start("exec sleep 60")
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\n")
    used = with_group(run, tmp_path).usage()
    assert used.cpu_seconds == 2.5 and used.max_memory_bytes > 0


def with_group(run: Run, folder: Path) -> Run:
    return replace(run, unit=Unit("u.service", "id", str(folder)))
