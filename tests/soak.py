"""``make soak HOURS=…``: a machine's life in scaled time, with faults all the way.

Jobs of a second, heartbeats every 50 ms, a random fault every few seconds; the seed is
printed and repeats the run. At the end every job must have exactly one truthful
completion, the sequence no gap, and nothing may have grown.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.agent_process import Agent, configured, ended
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double.double import Double, install
from tests.runner_double.plan import FAST

VM = "vm-1"

#: Mean seconds between two faults.
FAULT_SECONDS = 3.0

#: So long, in scaled time, parent and workers come to share fewer and fewer pages, and
#: SQLite's cache fills; what grows after that, grows for ever.
WARM_SECONDS = 180.0

#: The part of the time in which the agent itself is killed, too: later it is spared,
#: since only a long life shows growth.
DEADLY_PART = 0.3

#: What is measured of the tree. A page counts for anonymous memory in each process that
#: has it, shared or not: a worker that is forked anew does not change it, a leak does.
COLUMNS = ("descriptors", "threads", "processes", "PSS kB", "anonymous kB")

#: Seconds between two measurements.
SAMPLE_SECONDS = 2.0

SETTINGS: dict[str, Any] = {
    "runner": {"after_job": "register", "max_restarts": 1000},
    "heartbeat": {"interval": "50ms", "timeout": "5s"},
    "logging": {"level": "warning"},
    "metrics": {"collection_interval": "100ms"},
}

#: What each result of the double is to be reported as, where nothing was killed.
RESULTS = {"Succeeded": "succeeded", "Failed": "failed", "Canceled": "cancelled"}


@dataclass
class Soak:
    """One run: the machine, its chance, and what was measured."""

    agent: Agent
    double: Double
    controller: ReferenceController
    chance: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    #: (seconds, and COLUMNS), a list for each agent's life.
    lives: list[list[tuple[float, ...]]] = field(default_factory=lambda: [[]])

    def run(self, seconds: float) -> None:
        """Inject faults and measure until the time is over, then end in order."""
        self.agent.start()
        began = time.monotonic()
        end, due = began + seconds, began + FAULT_SECONDS
        while time.monotonic() < end:
            pause(SAMPLE_SECONDS / 4)
            self.measure()
            if time.monotonic() >= due:
                self.inject(
                    spare_agent=time.monotonic() > began + seconds * DEADLY_PART
                )
                due = time.monotonic() + self.chance.expovariate(1 / FAULT_SECONDS)
            if not self.agent.alive():
                raise AssertionError(f"miglet ended; log:\n{self.agent.end_of_log()}")
        self.agent.signal(signal.SIGTERM)
        status = self.agent.wait(60)
        assert status == 0, f"exit status {status}"

    def inject(self, spare_agent: bool) -> None:
        """One fault of the list, by chance."""
        faults = [each for each in FAULTS if not (spare_agent and each is kill_agent)]
        fault = self.chance.choice(faults)
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            fault(self)
            self.faults[fault.__name__] += 1

    def measure(self) -> None:
        """What the tree holds at this moment; skipped while it changes."""
        with contextlib.suppress(psutil.Error, OSError, AssertionError, ValueError):
            parent = psutil.Process(self.agent.pid)
            tree = [parent, *self.agent.workers().values()]
            self.lives[-1].append(
                (
                    time.monotonic(),
                    parent.num_fds(),
                    sum(process.num_threads() for process in tree),
                    len(parent.children(recursive=True)),
                    sum(map(pss_kilobytes, tree)),
                    sum(kilobytes(process, "Anonymous") for process in tree),
                )
            )


def some_worker(soak: Soak) -> psutil.Process:
    """One of the four; NoSuchProcess while there are none."""
    workers = list(soak.agent.workers().values())
    if not workers:
        raise psutil.NoSuchProcess(soak.agent.pid, msg="no worker at the moment")
    return soak.chance.choice(workers)


def kill_worker(soak: Soak) -> None:
    """SIGKILL for one of the four."""
    some_worker(soak).kill()


def stop_worker(soak: Soak) -> None:
    """SIGSTOP for one of the four, for a moment."""
    worker = some_worker(soak)
    worker.suspend()
    pause(soak.chance.uniform(0.1, 1.0))
    worker.resume()


def kill_agent(soak: Soak) -> None:
    """SIGKILL for the parent; a new one soon after."""
    soak.agent.signal(signal.SIGKILL)
    assert soak.agent.process
    soak.agent.process.wait(10)
    pause(soak.chance.uniform(0.0, 1.0))
    soak.agent.start()
    soak.lives.append([])


def kill_listener(soak: Soak) -> None:
    """SIGKILL for the runner, idle or busy."""
    runner = soak.agent.status()["runner"]
    if runner and runner["pid"]:
        os.kill(runner["pid"], signal.SIGKILL)


def stop_controller(soak: Soak) -> None:
    """The controller hangs for a moment."""
    process = psutil.Process(soak.controller.process.pid)
    process.suspend()
    pause(soak.chance.uniform(0.2, 2.0))
    process.resume()


FAULTS: list[Callable[[Soak], None]] = [
    kill_worker,
    kill_worker,
    kill_worker,
    stop_worker,
    stop_worker,
    kill_agent,
    kill_listener,
    stop_controller,
]


def pause(seconds: float) -> None:
    """Let the machine live."""
    time.sleep(seconds)


def pss_kilobytes(process: psutil.Process) -> float:
    """The process's share of memory."""
    return kilobytes(process, "Pss")


def kilobytes(process: psutil.Process, figure: str) -> float:
    """A figure of the process's memory: proc_pid_smaps(5)."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{figure}:")]
    return float(line.split()[1])


# What must have held.


def check(soak: Soak) -> list[str]:
    """Every promise that was broken."""
    events = [
        each for each in soak.controller.events(VM) if each["type"] != "JobHeartbeat"
    ]
    return [
        *check_sequence(events),
        *check_jobs(soak, events),
        *check_listeners(soak.double),
    ]


def check_sequence(events: list[dict[str, Any]]) -> list[str]:
    """The sequence has no gap."""
    sequences = [each["sequence"] for each in events]
    expected = list(range(1, len(events) + 1))
    return [] if sequences == expected else [f"sequences {sequences}"]


def check_jobs(soak: Soak, events: list[dict[str, Any]]) -> list[str]:
    """Each job that ran was started once and completed once, with its true result."""
    broken = []
    started = Counter(e["trace_id"] for e in events if e["type"] == "JobStarted")
    completed = Counter(e["trace_id"] for e in events if e["type"] == "JobCompleted")
    both = started + completed
    wrong = {each for each in both if (started[each], completed[each]) != (1, 1)}
    if wrong:
        kinds = [(e["sequence"], e["type"]) for e in events if e["trace_id"] in wrong]
        broken.append(f"not one start and one end each: {kinds}")
    ran = {each["name"] for each in soak.double.truth("running_job")}
    if len(ran) != len(started):
        broken.append(f"{len(ran)} jobs ran, {len(started)} were started")
    printed = {each["name"]: each["result"] for each in soak.double.truth("result")}
    starts = [each for each in events if each["type"] == "JobStarted"]
    names = {each["trace_id"]: each["data"]["name"] for each in starts}
    for event in (each for each in events if each["type"] == "JobCompleted"):
        name, result = names[event["trace_id"]], event["data"]["result"]
        truth = RESULTS.get(printed.get(name, ""), "unknown")
        if result not in (truth, "unknown" if name not in printed else truth):
            broken.append(f"{name}: {result}, in truth {truth}")
    return broken


def check_listeners(double: Double) -> list[str]:
    """There never were two runners at a time."""
    alive: set[int] = set()
    for each in double.truth():
        if each["what"] == "listener_start":
            alive = {pid for pid in alive if psutil.pid_exists(pid)} | {each["pid"]}
        if each["what"] == "listener_exit":
            alive.discard(each["pid"])
        if len(alive) > 1 and all(map(psutil.pid_exists, alive)):
            return [f"two runners at {each['mono']}"]
    return []


def warm(samples: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The samples of a life after its beginning."""
    return [each for each in samples if each[0] >= samples[0][0] + WARM_SECONDS]


def slope(samples: list[tuple[float, ...]], column: int) -> str:
    """Growth an hour of a column, by least squares, with its 95 % confidence."""
    if len(samples) < 10:
        return "too few samples"
    hours = [(each[0] - samples[0][0]) / 3600 for each in samples]
    values = [each[column] for each in samples]
    fit = statistics.linear_regression(hours, values)
    rest = [
        y - fit.intercept - fit.slope * x for x, y in zip(hours, values, strict=True)
    ]
    spread = sum((x - statistics.fmean(hours)) ** 2 for x in hours)
    error = math.sqrt(sum(r * r for r in rest) / (len(rest) - 2) / spread)
    middle = statistics.median(values)
    return f"{middle:.0f}, {fit.slope:+.1f} ± {1.96 * error:.1f} an hour"


def main() -> int:
    """Run for $HOURS; 0 if every promise held."""
    hours = float(os.environ.get("HOURS", "0.1667"))
    seed = int(os.environ.get("SEED", str(random.randrange(10**6))))
    print(f"soak: {hours:g} h, SEED={seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="miglet-soak-") as name:
        folder = Path(name)
        results = ["Succeeded", "Failed"]
        plan = {
            "scale": FAST,
            "listener": [
                {
                    "scenario": "job",
                    "after": 0.1,
                    "seconds": 1.0,
                    "name": f"job-{number}",
                    "result": results[number % 2],
                }
                for number in range(int(hours * 3600) + 100)
            ],
        }
        with running_controller(folder, log_level=None) as controller:
            double = install(folder / "runner", plan)
            agent = configured(
                folder / "agent",
                controller.endpoint,
                controller.token_path,
                folder / "runner",
                **SETTINGS,
            )
            soak = Soak(agent, double, controller, random.Random(seed))
            try:
                with ended(agent):
                    soak.run(hours * 3600)
                return report(soak)
            finally:
                double.kill()


def report(soak: Soak) -> int:
    """Print what happened; 0 if every promise held."""
    broken = check(soak)
    kinds = Counter(each["type"] for each in soak.controller.events(VM))
    print(f"faults           {dict(soak.faults)}")
    print(f"events           {dict(kinds)}")
    for column, name in enumerate(COLUMNS, 1):
        print(f"{name:<16} {slope(warm(max(soak.lives, key=len)), column)}")
    for each in broken:
        print(f"BROKEN           {each}")
    print("every promise held" if not broken else "promises were BROKEN")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
