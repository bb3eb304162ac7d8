"""The rules of the end: errors, signals, deadlines, and the last steps.

Pure, like every rule; which one holds in which state, the table in `lifecycle` tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from miglet import errors
from miglet.job.verdict import Verdict
from miglet.lifecycle.common import (
    Step,
    concluded,
    drained,
    exited,
    failed,
    flushed,
    last_call,
    shut_down,
    stop_now,
)
from miglet.lifecycle.effects import Emit, Exit, SetTimer, StopTimer
from miglet.lifecycle.job import announce_late, job_too_long
from miglet.lifecycle.startup import give_up
from miglet.lifecycle.vm import End, Moment, State, Vm
from miglet.messages.events import CommandCompleted, Error, TerminationNotice, timestamp
from miglet.messages.facts import (
    CredentialsRenewed,
    DeadlinePassed,
    EventDelivered,
    EventRefused,
    EventSetAside,
    EventsFlushed,
    RunnerRemoved,
    SignalReceived,
    TerminationNoticed,
    WorkerLost,
)

#: An announcement that is told again may differ by so much in its time.
SAME_SECONDS = 5.0

#: The code of the Error that tells of an event that was set aside.
SET_ASIDE = "event_set_aside"

#: Deaths of the runner-watcher after which a machine without a job gives up.
HOPELESS_DEATHS = 10


def worker_lost(vm: Vm, fact: WorkerLost, moment: Moment) -> Step:
    """A worker keeps dying; without a watcher no runner can ever be registered."""
    told = Error(
        category="infrastructure",
        code="worker_crash_loop",
        message=f"{fact.worker} died {fact.deaths} times in a row: {fact.reason}",
        component="supervisor",
        hint="its log lines say why; it is tried again all the time",
    )
    hopeless = fact.worker == "runner-watcher" and fact.deaths >= HOPELESS_DEATHS
    if hopeless and vm.state is State.REGISTERING_RUNNER:
        return failed(vm, [told], errors.CRASH_LOOP, moment)
    return vm, [Emit(told)]


def runner_removed(vm: Vm, fact: RunnerRemoved, moment: Moment) -> Step:
    """Nothing of ours runs or is registered: only events are left."""
    vm, effects = _lost(vm, moment)
    vm, more = flushed(vm, moment)
    return vm, [*effects, *more]


def _lost(vm: Vm, moment: Moment) -> Step:
    """A job whose end nobody saw is closed as unknown; a job is never left open."""
    cause = vm.stopped_by or "unknown"
    reasons = ("the runner's end was not seen before MIGlet had to end",)
    return concluded(vm, Verdict("unknown", cause, None, reasons), moment)


def all_told(vm: Vm, fact: EventsFlushed, moment: Moment) -> Step:
    """Every event is delivered."""
    return exited(vm, moment) if vm.flushing else (vm, [])


def go_down(vm: Vm, fact: EventDelivered | EventRefused, moment: Moment) -> Step:
    """The controller knows of the error: shut down."""
    if fact.type != "Error" or vm.end is None:
        return vm, []
    vm, effects = shut_down(vm, vm.end, moment)
    return vm, [StopTimer("error"), *effects]


def event_set_aside(vm: Vm, fact: EventSetAside, moment: Moment) -> Step:
    """Report an event that the controller keeps failing to accept.

    Not the Error that reports it, which would lead to the next one, and nothing after
    VMStopped.
    """
    if fact.code == SET_ASIDE or fact.last:
        return vm, []
    told = Error(
        category="infrastructure",
        code=SET_ASIDE,
        message=f"{fact.type} (sequence {fact.sequence}) is set aside: {fact.reason}",
        component="controller",
        hint="the controller's log says why it fails; it is tried again at the end",
    )
    return vm, [Emit(told)]


def heed_notice(vm: Vm, fact: TerminationNoticed, moment: Moment) -> Step:
    """The cloud ends the machine: idle, go at once; busy, stay while time allows."""
    due = None if fact.deadline is None else moment.now + fact.deadline - moment.at
    if _is_known(vm, fact.kind, due):
        return vm, []
    deadline = timestamp(fact.deadline) if fact.deadline else None
    told = Emit(TerminationNotice(fact.kind, deadline, fact.source))
    vm = vm.having(notices={**vm.notices, fact.kind: due})
    vm, effects = drained(vm, End("termination_notice", fact.source), moment)
    return vm, [told, *effects, *last_call(vm, moment)]


def _is_known(vm: Vm, kind: str, due: float | None) -> bool:
    """Whether this was announced before, and not for an earlier time than now."""
    if kind not in vm.notices:
        return False
    before = vm.notices[kind]
    return due is None or (before is not None and due > before - SAME_SECONDS)


def time_is_up(vm: Vm, moment: Moment) -> Step:
    """What is left until the machine ends is needed to stop and to tell."""
    end = End("termination_notice", "cloud")
    return stop_now(vm, end, moment, stopped_by="termination_notice")


def credentials_renewed(vm: Vm, fact: CredentialsRenewed, moment: Moment) -> Step:
    """The answer to RotateCredentials."""
    if not fact.command_id:
        return vm, []
    outcome = "failed" if fact.reason else "done"
    name = "RotateCredentials"
    return vm, [Emit(CommandCompleted(fact.command_id, name, outcome, fact.reason))]


def heed_signal(vm: Vm, fact: SignalReceived, moment: Moment) -> Step:
    """First: finish the job, then go. Second: stop it now. Third: go now."""
    vm = vm.having(signals=vm.signals + 1)
    end = End(fact.name.lower(), "signal")
    if vm.signals == 1:
        vm, effects = drained(vm, end, moment)
        return vm, [*effects, SetTimer("force", vm.policy.force_after)]
    if vm.signals == 2:
        return stop_now(vm, end, moment)
    vm, effects = _lost(vm, moment)
    return vm, [*effects, Exit(vm.end.exit_status if vm.end else 0)]


def heed_deadline(vm: Vm, fact: DeadlinePassed, moment: Moment) -> Step:
    """Something took longer than it may."""
    deadline = DEADLINES.get(fact.name)
    if deadline is None or vm.state not in deadline.states:
        return vm, []
    return deadline.rule(vm, moment)


def idle_too_long(vm: Vm, moment: Moment) -> Step:
    """No job came within runner.idle_timeout."""
    return drained(vm, End("idle_timeout", "miglet"), moment)


def force(vm: Vm, moment: Moment) -> Step:
    """The job was given shutdown.force_after and is not over."""
    return stop_now(vm, End("force_after", "signal"), moment)


def error_told_or_not(vm: Vm, moment: Moment) -> Step:
    """The controller did not take the Error event in time; the end does not wait."""
    return shut_down(vm, vm.end, moment) if vm.end else (vm, [])


def stopped_or_not(vm: Vm, moment: Moment) -> Step:
    """The runner-watcher did not manage to end the runner in time."""
    return runner_removed(vm, RunnerRemoved("out of time"), moment)


class Deadline(NamedTuple):
    """What a timer means while the machine is in one of these states."""

    states: frozenset[State]
    rule: Callable[[Vm, Moment], Step]


def _in(rule: Callable[[Vm, Moment], Step], *states: State) -> Deadline:
    return Deadline(frozenset(states), rule)


#: What happens when a timer runs out; in other states it has lost its meaning.
DEADLINES: dict[str, Deadline] = {
    "announce": _in(announce_late, State.JOB_RUNNING, State.DRAINING),
    "max_job": _in(job_too_long, State.JOB_RUNNING, State.DRAINING),
    "idle": _in(idle_too_long, State.IDLE),
    "force": _in(force, State.DRAINING),
    "error": _in(error_told_or_not, State.ERROR),
    "notice": _in(time_is_up, State.JOB_RUNNING, State.DRAINING),
    "stop": _in(stopped_or_not, State.SHUTTING_DOWN),
    "flush": _in(exited, State.SHUTTING_DOWN),
    "give_up": _in(give_up, State.WAITING_FOR_CONTROLLER),
}
