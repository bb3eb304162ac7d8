"""Clocks that jump, and machines that stand still for a while."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.end_to_end.conftest import HELD, IDLE, Machine
from tests.faults import invariants
from tests.support import eventually

HOUR, YEAR = 3600.0, 365 * 86400.0

#: Stands before the C library: the wall clock is off by what the file says, and the
#: other clocks are right.
SHIFTED = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile double *offset(void) {
    static volatile double *seen;
    if (!seen) {
        int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
        void *map = mmap(0, sizeof *seen, PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if (map == MAP_FAILED) abort();
        seen = map;
    }
    return seen;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, which, now);
    if (!result && which == CLOCK_REALTIME) now->tv_sec += (time_t)*offset();
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """The library that shifts the clock of a process that has it preloaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler, and so no clock of our own")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "shifted.c").write_text(SHIFTED)
    built = folder / "shifted.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", built, folder / "shifted.c"], check=True
    )
    return built


class Clock:
    """The machine's wall clock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(bytes(8))

    def set(self, seconds: float) -> None:
        """So much ahead of the truth, at once; in place, for those who look at it."""
        with self._path.open("r+b") as file:
            file.write(struct.pack("d", seconds))


@pytest.fixture
def clock(library, tmp_path) -> Clock:
    return Clock(tmp_path / "offset")


def with_clock(vm: Machine, library: Path, tmp_path: Path) -> Machine:
    """The machine, on which MIGlet goes by this clock."""
    clock = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(tmp_path / "offset")}
    vm.agent.environment |= clock
    return vm


def with_runner(vm: Machine) -> Machine:
    """The machine, on which the runner goes by the same clock as MIGlet."""
    clock = vm.agent.environment
    listener = vm.double.root / "bin" / "Runner.Listener"
    program = listener.read_text()
    shebang, _, rest = program.partition("\n")
    words = " ".join(f"{name}={value}" for name, value in clock.items())
    listener.write_text(f"#!/usr/bin/env -S {words} {shebang[2:]}\n{rest}")
    return vm


@pytest.mark.slow
@pytest.mark.parametrize("jump", [HOUR, -HOUR, YEAR, -YEAR])
def test_a_clock_that_jumps_disturbs_neither_rhythm_nor_order(
    machine, library, clock, tmp_path, jump
):
    settings = {"heartbeat": {"interval": "200ms", "timeout": "5s"}}
    vm = with_runner(with_clock(machine(HELD, **settings), library, tmp_path))
    vm.agent.start()
    vm.event("RunnerRegistered")
    clock.set(jump)
    since = time.monotonic()
    beats = eventually(lambda: beats_since(vm, since, 8), 10, "heartbeats")
    assert abs(stamp(beats[-1]) - time.time() - jump) < 10
    assert max(gaps(beats)) < 1.5
    vm.double.release_job()
    vm.event("JobStarted")
    clock.set(-jump)
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    events = vm.events()
    invariants.kept(events, vm)
    (completed,) = vm.events("JobCompleted")
    assert 0 <= completed["data"]["duration_seconds"] < 30
    assert "is unresponsive" not in vm.agent.log()


@pytest.mark.slow
def test_a_clock_that_jumps_makes_no_ghost_of_a_job(machine, library, clock, tmp_path):
    vm = with_clock(machine(HELD), library, tmp_path)
    vm.agent.start()
    vm.event("RunnerRegistered")
    clock.set(HOUR)
    vm.double.release_job()
    vm.event("JobStarted")
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)


def beats_since(vm: Machine, since: float, count: int) -> list:
    beats = vm.controller.heartbeats(vm.vm)
    late = [each for each in beats if each["received_mono"] > since]
    return late if len(late) >= count else []


def gaps(beats: list) -> list[float]:
    times = [each["received_mono"] for each in beats]
    return [after - before for before, after in zip(times, times[1:], strict=False)]


def stamp(beat: dict) -> float:
    return datetime.fromisoformat(beat["timestamp"].replace("Z", "+00:00")).timestamp()


@pytest.mark.slow
def test_a_machine_that_stood_still_does_not_catch_up(machine):
    settings = {
        "heartbeat": {"interval": "200ms", "timeout": "5s"},
        "metrics": {"collection_interval": "200ms"},
    }
    vm = machine(IDLE, **settings)
    vm.agent.start()
    vm.agent.until("idle")
    tree = {vm.agent.pid, *(each.pid for each in vm.agent.workers().values())}
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    wake = time.monotonic() + 6
    eventually(lambda: time.monotonic() > wake, 10)
    since = time.monotonic()
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: beats_since(vm, since, 1), 1.5, "a heartbeat")
    eventually(lambda: time.monotonic() > since + 1.0)
    assert len(beats_since(vm, since, 1)) <= 8
    assert {vm.agent.pid, *(each.pid for each in vm.agent.workers().values())} == tree
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0
