"""Histories for the lifecycle: a machine, some facts, and what comes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from miglet.commands import registry  # noqa: F401 - its commands are rows
from miglet.job import signs
from miglet.job.evidence import Evidence
from miglet.job.verdict import RunnerExit
from miglet.lifecycle.effects import Effect, Emit, GiveOrder, Post
from miglet.lifecycle.table import step
from miglet.lifecycle.vm import Moment, Policy, Vm
from miglet.messages.codec import Fact, Order
from miglet.messages.events import Event
from miglet.messages.facts import (
    CommandReceived,
    CommandValidated,
    EventDelivered,
    JobEnded,
    JobIdentified,
    JobSeen,
    PreflightDone,
    RunnerExited,
    RunnerLaunched,
    RunnerListening,
)

RUN = "0123456789abcdef0123456789abcdef"
RUNNER = {"run_id": RUN, "name": "vm-1-b00t", "pid": 4711, "version": "2.336.0"}
USAGE = {
    "cpu_seconds": 1.5,
    "max_memory_bytes": 1000,
    "io_read_bytes": 0,
    "io_write_bytes": 10,
}
MACHINE = {
    "version": "0.1.0",
    "boot_id": "b00t",
    "cloud": None,
    "zone": None,
    "instance_name": None,
    "hostname": None,
    "machine_type": None,
    "image": None,
    "cpu_count": 2,
    "memory_bytes": 1,
    "disk_bytes": 1,
    "runner_version": "2.336.0",
    "timeline": {},
}
IDENTITY = {"job_id": "555000111", "run_id": "777001", "repository": "octo/widget"}

PREPARED = PreflightDone([], MACHINE)
ACKNOWLEDGED = EventDelivered(1, "VMStarted")
LAUNCHED = RunnerLaunched(RUNNER)
LISTENING = RunnerListening(RUNNER, attempts=1, duration_seconds=2.0)
SEEN = JobSeen(RUN, "output", 1000.0)
IDENTIFIED = JobIdentified(RUN, "worker_log", IDENTITY)

AT = 1000.0


def fresh(**policy: Any) -> Vm:
    """A machine that has just started."""
    return Vm("vm-1-b00t", policy=Policy(**policy))


def live(vm: Vm, *history: Fact, now: float = 50.0) -> tuple[Vm, list[Effect]]:
    """The machine after the history, and every effect on the way."""
    effects: list[Effect] = []
    moment = Moment(AT + now - 50.0, now)
    inbox = deque(history)
    while inbox:
        fact = inbox.popleft()
        if isinstance(fact, CommandValidated) and fact.id:
            vm, _ = step(vm, CommandReceived(fact.id, fact.type, {}), moment)
        vm, wanted = step(vm, fact, moment)
        effects += wanted
        inbox.extendleft(each.fact for each in wanted if isinstance(each, Post))
    return vm, effects


def idle(**policy: Any) -> Vm:
    """A machine with a listening runner."""
    return live(fresh(**policy), PREPARED, ACKNOWLEDGED, LAUNCHED, LISTENING)[0]


def busy(**policy: Any) -> Vm:
    """A machine with an announced job."""
    return live(idle(**policy), SEEN, IDENTIFIED)[0]


def events(effects: Iterable[Effect]) -> list[Event]:
    """The events that were emitted, in order."""
    return [each.event for each in effects if isinstance(each, Emit)]


def types(effects: Iterable[Effect]) -> list[str]:
    """Their wire names."""
    return [event.type for event in events(effects)]


def orders(effects: Iterable[Effect]) -> list[Order]:
    """The orders that were given, in order."""
    return [each.order for each in effects if isinstance(each, GiveOrder)]


def evidence(result: str | None = "Succeeded", code: int | None = 100) -> Evidence:
    """What a runner shows that ran a job and reported this result."""
    shown: list[signs.Sign] = [
        signs.Listening(AT, "output"),
        signs.JobRunning(AT, "output", "build"),
        signs.HookStarted(AT, "hook"),
        signs.HookCompleted(AT, "hook"),
    ]
    if code is not None:
        shown.append(signs.WorkerEnded(AT, "runner_log", code))
    if result is not None:
        shown.append(signs.JobResult(AT, "output", result))
    found = Evidence()
    for sign in shown:
        found = found.add(sign)
    return found


def finished(
    result: str = "succeeded",
    cause: str = "success",
    code: int | None = 0,
    crash: dict[str, Any] | None = None,
) -> JobEnded:
    """The job's Worker has ended."""
    return JobEnded(RUN, result, cause, code, AT, ["grounds"], USAGE, crash)


def gone(
    found: Evidence | None = None, exit_code: int | None = 0, signal: int | None = None
) -> RunnerExited:
    """The runner has ended; by default without having had a job."""
    runner_exit = RunnerExit(exit_code=exit_code, signal=signal, known=True).as_json()
    known = (found or Evidence()).as_json()
    return RunnerExited(RUN, known, runner_exit, USAGE, ["last words"])
