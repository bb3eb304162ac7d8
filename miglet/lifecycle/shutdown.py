"""How the machine ends: drain, shutdown, errors, signals, notices, the last steps.

Pure, like every rule; which one holds in which state is in `table`.
"""

from __future__ import annotations

from miglet.errors import CRASH_LOOP, DONE, UNDELIVERED
from miglet.formats import rfc3339
from miglet.lifecycle.effects import Effect, Emit, Exit, GiveOrder, KillRun, StopWorkers
from miglet.lifecycle.job import ORPHAN_TIMEOUT, Step, lose_job
from miglet.lifecycle.vm import DELIVERY_SECONDS, End, Moment, State, Vm
from miglet.messages.events import (
    CommandCompleted,
    Error,
    TerminationNotice,
    VMShuttingDown,
    VMStopped,
)
from miglet.messages.facts import (
    EventDelivered,
    EventRefused,
    EventSetAside,
    EventsFlushed,
    RunnerRemoved,
    SignalReceived,
    TerminationNoticed,
    WorkerLost,
)
from miglet.messages.orders import DrainRunner, StopRunner

#: Seconds after the grace period that killing and deregistering may take.
REMOVAL_SECONDS = 15.0

#: A notice that is repeated may differ by so much in its time.
SAME_NOTICE_SECONDS = 5.0

#: The code of the Error that reports an event that was set aside.
SET_ASIDE = "event_set_aside"

#: Why a command failed that was accepted and has no answer when MIGlet ends.
CUT_SHORT = "MIGlet ended before it was obeyed"

#: The worker without which no job can be observed.
WATCHER = "runner-watcher"

#: Whether a registration is known to be gone, by what became of its removal.
REGISTRATION_GONE = {"removed": True, "not_registered": True, "failed": None}


def drain(vm: Vm, end: End, moment: Moment) -> Step:
    """Take no new job; the end comes when the present one is over."""
    if vm.state in (State.DRAINING, State.SHUTTING_DOWN, State.ERROR):
        return vm, []
    if vm.runner is None:
        return shut_down(vm, end, moment)
    vm = vm.enter(State.DRAINING, moment, end=vm.end or end)
    return vm, [GiveOrder(DrainRunner())]


def shut_down(vm: Vm, end: End, moment: Moment) -> Step:
    """Stop what runs, remove the registration, deliver the last events, exit."""
    if vm.state is State.SHUTTING_DOWN:
        return vm, []
    end = vm.end or end
    effects: list[Effect] = []
    if end.final and not end.announced:
        uptime = round(moment.now, 3)
        event = VMShuttingDown(end.reason, end.requested_by, uptime, end.detail)
        effects.append(Emit(event))
        end = End(**{**vars(end), "announced": True})
    vm = vm.enter(State.SHUTTING_DOWN, moment, end=end)
    if vm.job and vm.stopped_by is None:
        vm = vm.replace(stopped_by=stop_cause(vm))
    if not vm.name:
        # No runner was ever asked for: there is nothing to stop or to deregister.
        vm, last = finish(vm, "not_registered", moment)
        return vm, [*effects, *last]
    return vm, [*effects, GiveOrder(stop_order(vm, moment.now))]


def stop_cause(vm: Vm) -> str:
    """Why a job is stopped that is stopped now."""
    return "termination_notice" if vm.notices else "shutdown"


def stop_order(vm: Vm, now: float) -> StopRunner:
    """The order to end the runner; what is left until the machine's end bounds it."""
    settle = vm.policy.drain_settle if vm.finished else 0.0
    orphaned = vm.stopped_by == ORPHAN_TIMEOUT
    grace = 0.0 if orphaned else grace_left(vm, now)
    return StopRunner(settle, grace, vm.stopped_by or stop_cause(vm))


def grace_left(vm: Vm, now: float) -> float | None:
    """What the machine's announced end leaves of the grace period; None: all of it."""
    if vm.announced_end is None:
        return None
    left = vm.announced_end - now - DELIVERY_SECONDS
    return None if left >= vm.policy.grace_period else max(0.0, left)


def stop_now(vm: Vm, end: End, moment: Moment, cause: str = "shutdown") -> Step:
    """Shut down, and stop the job, if there is one, for this cause."""
    if vm.job and vm.stopped_by is None:
        vm = vm.replace(stopped_by=cause)
    return shut_down(vm, end, moment)


def finish(vm: Vm, removal: str, moment: Moment) -> Step:
    """Nothing of ours runs: answer what is open, say VMStopped, deliver the rest."""
    if vm.flushing or vm.end is None:
        return vm, []
    reason = "the runner's end was not seen before MIGlet had to end"
    vm, effects = lose_job(vm, moment, vm.stopped_by or "unknown", reason)
    effects += answer_open_commands(vm)
    if vm.end and vm.end.final:
        stopped = VMStopped(
            reason=vm.end.reason,
            requested_by=vm.end.requested_by,
            uptime_seconds=round(moment.now, 3),
            removal=removal,
            runner_removed=REGISTRATION_GONE.get(removal, False),
            events_dropped=0,
        )
        effects.append(Emit(stopped))
    vm = vm.replace(flushing_since=moment.now, commands={})
    return vm, [*effects, StopWorkers()]


def answer_open_commands(vm: Vm) -> list[Effect]:
    """CommandCompleted for each command that will not be obeyed any more."""
    return [
        Emit(CommandCompleted(identity, kind, "failed", CUT_SHORT))
        for identity, kind in vm.commands.items()
    ]


def runner_removed(vm: Vm, fact: RunnerRemoved, moment: Moment) -> Step:
    """Nothing of ours runs or is registered: only events are left."""
    return finish(vm, fact.removal, moment)


def events_flushed(vm: Vm, fact: EventsFlushed, moment: Moment) -> Step:
    """Every event is delivered: the program ends."""
    return vm, [Exit(exit_status(vm))]


def exit_status(vm: Vm) -> int:
    """The program's exit status when everything is delivered."""
    return vm.end.exit_status if vm.end else DONE


def give_up_delivery(vm: Vm, moment: Moment) -> Step:
    """Events are left after shutdown.delivery_timeout; a later start delivers them."""
    final = vm.end is None or vm.end.final
    return vm, [Exit(UNDELIVERED if final else exit_status(vm))]


def fail(vm: Vm, errors: list[Error], exit_status: int, moment: Moment) -> Step:
    """A terminal fault: report it, then shut down with this exit status.

    A start that fails like the one before it is not reported again.
    """
    if vm.state in (State.ERROR, State.SHUTTING_DOWN):
        return vm, [Emit(error) for error in errors]
    end = End(errors[0].code, "miglet", exit_status)
    vm = vm.enter(State.ERROR, moment, end=end)
    return vm, [] if vm.failed_before else [Emit(error) for error in errors]


def error_reported(vm: Vm, fact: EventDelivered | EventRefused, moment: Moment) -> Step:
    """The controller knows of the error: shut down."""
    if fact.type != "Error" or vm.end is None:
        return vm, []
    return shut_down(vm, vm.end, moment)


def error_not_reported(vm: Vm, moment: Moment) -> Step:
    """The controller did not take the Error event in time; the end does not wait."""
    return shut_down(vm, vm.end, moment) if vm.end else (vm, [])


def event_set_aside(vm: Vm, fact: EventSetAside, moment: Moment) -> Step:
    """Report an event that the controller keeps failing to accept.

    Not the Error that reports it, which would lead to the next one.
    """
    if fact.code == SET_ASIDE or fact.last:
        return vm, []
    error = Error(
        category="infrastructure",
        code=SET_ASIDE,
        message=f"{fact.type} (sequence {fact.sequence}) is set aside: {fact.reason}",
        component="controller",
        hint="the controller's log says why it fails; it is tried again at the end",
    )
    return vm, [Emit(error)]


def worker_lost(vm: Vm, fact: WorkerLost, moment: Moment) -> Step:
    """A worker dies again and again: nothing can be observed without the watcher."""
    if fact.worker != WATCHER:
        return report_lost_worker(vm, fact, moment)
    error = Error(
        category="infrastructure",
        code="runner_watcher_lost",
        message=f"{fact.worker} died {fact.deaths} times in a row: {fact.reason}",
        component="supervisor",
        hint="its log lines say why",
    )
    kill: list[Effect] = [KillRun(vm.runner["run_id"])] if vm.runner else []
    vm, effects = lose_job(vm, moment, "unknown", "runner_watcher_lost")
    if vm.state is State.SHUTTING_DOWN:
        vm, last = finish(vm, "failed", moment)
        return vm, [*effects, Emit(error), *kill, *last]
    vm, failing = fail(vm, [error], CRASH_LOOP, moment)
    return vm, [*effects, *failing, *kill]


def report_lost_worker(vm: Vm, fact: WorkerLost, moment: Moment) -> Step:
    """The machine goes on without the worker, which is started again and again."""
    error = Error(
        category="infrastructure",
        code="worker_crash_loop",
        message=f"{fact.worker} died {fact.deaths} times in a row: {fact.reason}",
        component="supervisor",
        hint="its log lines say why; it is started again and again",
    )
    return vm, [Emit(error)]


def handle_signal(vm: Vm, fact: SignalReceived, moment: Moment) -> Step:
    """First: finish the job, then end. Second: stop it now. Third: exit now."""
    vm = vm.replace(signals=vm.signals + 1)
    end = End("signal", "signal", detail=fact.name)
    if vm.signals == 1:
        return drain(vm.replace(forced_since=moment.now), end, moment)
    if vm.signals == 2:
        return stop_now(vm, end, moment)
    reason = "MIGlet was ordered to exit at once"
    vm, effects = lose_job(vm, moment, vm.stopped_by or "shutdown", reason)
    vm, last = give_up_delivery(vm, moment)
    return vm, [*effects, *last]


def exit_on_signal(vm: Vm, fact: SignalReceived, moment: Moment) -> Step:
    """While the last events are delivered, the third signal still means: now."""
    vm = vm.replace(signals=vm.signals + 1)
    return give_up_delivery(vm, moment) if vm.signals > 2 else (vm, [])


def handle_notice(vm: Vm, fact: TerminationNoticed, moment: Moment) -> Step:
    """The cloud ends the machine: idle, end at once; busy, go on while time allows."""
    due = None if fact.deadline is None else moment.now + fact.deadline - moment.at
    if _is_known(vm, fact.kind, due):
        return vm, []
    deadline = rfc3339(fact.deadline) if fact.deadline else None
    notice = Emit(TerminationNotice(fact.kind, deadline, fact.source))
    vm = vm.replace(notices={**vm.notices, fact.kind: due})
    end = End("termination_notice", "cloud", detail=f"{fact.source}: {fact.kind}")
    vm, effects = drain(vm, end, moment)
    return vm, [notice, *effects]


def shorten_flush(vm: Vm, fact: TerminationNoticed, moment: Moment) -> Step:
    """The machine ends sooner than the last events may take; no event tells of it."""
    if fact.deadline is None:
        return vm, []
    due = moment.now + fact.deadline - moment.at
    return vm.replace(notices={**vm.notices, fact.kind: due}), []


def _is_known(vm: Vm, kind: str, due: float | None) -> bool:
    """Whether this was announced before, and not for an earlier time than now."""
    if kind not in vm.notices:
        return False
    before = vm.notices[kind]
    return due is None or (before is not None and due > before - SAME_NOTICE_SECONDS)


def notice_is_due(vm: Vm, moment: Moment) -> Step:
    """What is left until the machine ends is needed to stop and to deliver."""
    end = End("termination_notice", "cloud")
    return stop_now(vm, end, moment, "termination_notice")


def idle_too_long(vm: Vm, moment: Moment) -> Step:
    """No job came within runner.idle_timeout."""
    return drain(vm, End("idle_timeout", "miglet"), moment)


def force(vm: Vm, moment: Moment) -> Step:
    """The job was given shutdown.force_after and is not over."""
    return stop_now(vm, End("signal", "signal", detail="force_after"), moment)


def job_too_long(vm: Vm, moment: Moment) -> Step:
    """The job is over its runner.max_job_duration: stop it."""
    if vm.job is None or vm.stopped_by:
        return vm, []
    vm = vm.replace(stopped_by="timeout", stopping_since=moment.now)
    return vm, [GiveOrder(stop_order(vm, moment.now))]


def orphan_too_long(vm: Vm, moment: Moment) -> Step:
    """The job's lock at GitHub has run out: a result would not count any more."""
    vm = vm.replace(stopped_by=ORPHAN_TIMEOUT, stopping_since=moment.now)
    return vm, [GiveOrder(stop_order(vm, moment.now))]


def job_cannot_be_stopped(vm: Vm, moment: Moment) -> Step:
    """The job was to be stopped and has not ended: close it, and end the machine."""
    reason = "the runner did not end in time after it was stopped and killed"
    error = Error(
        category="infrastructure",
        code="runner_cannot_be_stopped",
        message=reason,
        component="runner",
        hint="its processes may be in uninterruptible sleep: look at the disks",
    )
    kill: list[Effect] = [KillRun(vm.runner["run_id"])] if vm.runner else []
    vm, effects = lose_job(vm, moment, vm.stopped_by or "runner_crash", reason)
    vm, failing = fail(vm, [error], CRASH_LOOP, moment)
    return vm, [*effects, *failing, *kill]


def stop_took_too_long(vm: Vm, moment: Moment) -> Step:
    """The runner-watcher did not manage to end the runner in time."""
    kill: list[Effect] = [KillRun(vm.runner["run_id"])] if vm.runner else []
    vm, effects = finish(vm, "failed", moment)
    return vm, [*kill, *effects]
