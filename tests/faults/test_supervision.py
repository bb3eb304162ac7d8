"""Workers that die or hang, in random order, while one job follows the other.

FAULT_BURSTS says how often; FAULT_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from miglet.lifecycle.runner import MINIMAL_AFTER_DEATHS
from miglet.lifecycle.shutdown import WATCHER
from miglet.supervisor.supervisor import Limits
from tests.end_to_end.conftest import Machine, job
from tests.faults import invariants
from tests.soak import pss_kilobytes
from tests.support import eventually

#: Seconds of faults; between two bursts there is a pause in which earlier deaths are
#: forgotten.
SECONDS_OF_A_BURST = 15.0
BURSTS = int(os.environ.get("FAULT_BURSTS", "1"))

#: Mean seconds between two faults.
BETWEEN = 0.7

#: How long the arbiter may hear nobody. If it waited for a worker that is stopped, it
#: would wait for ever: it is the arbiter itself that kills those, `liveness_timeout`
#: later. A busy machine alone delays a turn by far less.
STALL_SECONDS = Limits.liveness_timeout / 4

#: The share of a processor that the arbiter may need for all this. Its own time, unlike
#: that of the clock, does not grow with what else the machine does.
PROCESSOR_SHARE = 0.15

#: Growth of the parent's memory, after it has seen everything once.
GROWTH_KILOBYTES = 2048

SETTINGS = {
    "runner": {"after_job": "register", "max_restarts": 1000},
    "heartbeat": {"interval": "50ms", "timeout": "5s"},
    "metrics": {"collection_interval": "100ms"},
}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on no disk, where there is one."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="miglet-test-") as name:
        yield Path(name)


@pytest.fixture
def chance() -> random.Random:
    """Its seed is printed, for a failure to be repeated."""
    seed = int(os.environ.get("FAULT_SEED", str(random.randrange(10**6))))
    print(f"FAULT_SEED={seed}")
    return random.Random(seed)


class Victims:
    """Harms workers, but none that its deaths in a row would have counted as lost.

    What happens then is another promise: the machine reports its job and ends.
    """

    def __init__(self, vm: Machine, chance: random.Random) -> None:
        self._vm = vm
        self._chance = chance
        #: When each worker's deaths were seen.
        self._deaths: dict[str, list[float]] = {}
        self._harmed: list[psutil.Process] = []

    def harm(self) -> None:
        """SIGKILL, or a SIGSTOP that nobody takes back, for one of the workers."""
        workers = self._vm.agent.status()["workers"]
        for name, each in workers.items():
            seen = self._deaths.setdefault(name, [])
            seen += [time.monotonic()] * (each["restarts"] - len(seen))
        victims = sorted(
            each["pid"]
            for name, each in workers.items()
            if each["pid"] and self._in_a_row(name) < most_deaths(name)
        )
        number = self._chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
        if victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim = psutil.Process(self._chance.choice(victims))
                victim.send_signal(number)
                self._harmed.append(victim)

    def replaced(self) -> bool:
        """Whether all that were harmed are reaped, and all workers there and well.

        For a moment after its SIGKILL a worker counts as well: nobody knows yet.
        """
        self._harmed = [each for each in self._harmed if each.is_running()]
        workers = self._vm.agent.status()["workers"].values()
        well = all(each["healthy"] and each["pid"] for each in workers)
        return well and not self._harmed

    def _in_a_row(self, name: str) -> int:
        """Deaths by now without a life between them that was surely long enough."""
        count, later = 0, time.monotonic()
        for at in reversed(self._deaths[name]):
            if later - at > 2 * Limits.stable:
                break
            count, later = count + 1, at
        return count


def most_deaths(name: str) -> int:
    """Deaths in a row that cost a worker nothing.

    A watcher that follows on more of them reads no logs, and may not know the result.
    """
    limit = MINIMAL_AFTER_DEATHS if name == WATCHER else Limits.deaths
    return limit - 1


def harmed(victims: Victims, chance: random.Random, seconds: float) -> None:
    """Faults for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pause(chance.expovariate(1 / BETWEEN))
        victims.harm()


def pause(seconds: float) -> None:
    due = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= due, seconds + 5)


def processor_seconds(vm: Machine) -> float:
    """What the arbiter itself has needed so far, without its workers."""
    times = psutil.Process(vm.agent.pid).cpu_times()
    return times.user + times.system


def sizes(vm: Machine) -> dict[str, float]:
    """What could grow in the parent."""
    parent = psutil.Process(vm.agent.pid)
    return {
        "descriptors": invariants.descriptors(vm.agent.pid),
        "threads": parent.num_threads(),
        "children": len(parent.children()),
        "kilobytes": pss_kilobytes(parent),
    }


@pytest.mark.slow
def test_workers_that_die_and_hang_cost_nothing_and_nobody_waits(
    machine, memory, chance
):
    jobs = [job(("Succeeded", "Failed")[n % 2], name=f"job-{n}") for n in range(5000)]
    paths = {"state": str(memory)}
    vm = machine(*jobs, paths=paths, **SETTINGS)
    vm.agent.start()
    vm.event("JobCompleted")
    victims = Victims(vm, chance)
    harmed(victims, chance, SECONDS_OF_A_BURST / 3)
    eventually(victims.replaced, 60, "sound workers")
    before = sizes(vm)
    began, used_before = time.monotonic(), processor_seconds(vm)
    for number in range(BURSTS):
        if number:
            pause(Limits.stable)
        harmed(victims, chance, SECONDS_OF_A_BURST)
        eventually(victims.replaced, 60, "sound workers")
    share = (processor_seconds(vm) - used_before) / (time.monotonic() - began)
    stall = vm.agent.status()["arbiter"]["longest_stall_seconds"]
    with contextlib.suppress(AssertionError):
        eventually(lambda: not grown(sizes(vm), before), 20)
    after = sizes(vm)
    assert not grown(after, before), (before, after)
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0, vm.agent.end_of_log()
    print(f"longest stall {stall * 1000:.1f} ms, {share:.1%} of a processor")
    print(f"before {before}, after {after}")
    assert stall < STALL_SECONDS
    assert share < PROCESSOR_SHARE
    check(vm)


def grown(now: dict[str, float], before: dict[str, float]) -> list[str]:
    """What has grown; memory, by more than its limit."""
    allowed = {**before, "kilobytes": before["kilobytes"] + GROWTH_KILOBYTES}
    return [each for each in now if now[each] > allowed[each]]


def check(vm: Machine) -> None:
    events = vm.events()
    invariants.whole(events)
    invariants.complete(events, len(vm.double.truth("running_job")))
    invariants.true_to(events, vm.double.truth("result"))
    invariants.one_registration_at_a_time(vm.double.registry()["history"])
    invariants.one_listener_at_a_time(vm.double.truth())
