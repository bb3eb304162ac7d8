"""The runner: provided, launched, listening, gone; and what follows a job's end.

Pure, like every rule; which one holds in which state is in `table`.
"""

from __future__ import annotations

from miglet import errors
from miglet.job.verdict import GIVE_UP, RELAUNCH, Crash, crash
from miglet.lifecycle.effects import Effect, Emit, GiveOrder
from miglet.lifecycle.job import (
    Step,
    complete_job,
    crash_of,
    lose_job,
    read_end,
    report_crash,
    start_job,
)
from miglet.lifecycle.shutdown import fail, shut_down, stop_cause, stop_order
from miglet.lifecycle.vm import End, Moment, State, Vm
from miglet.messages.codec import Order
from miglet.messages.events import Error, RunnerRegistered
from miglet.messages.facts import (
    FaultNoted,
    JobEnded,
    JobSeen,
    RegistrationFailed,
    RunnerExited,
    RunnerFailing,
    RunnerLaunched,
    RunnerListening,
    RunnerRemoved,
    TokenSpent,
    WorkerStarted,
)
from miglet.messages.orders import (
    DrainRunner,
    ProvideRunner,
    RenewCredentials,
    WatchRunner,
)

#: A runner that ended in order, though nobody wanted it to end.
_IN_ORDER = Crash("ended_without_job", "reregister", False, "it ended in order")

#: Seconds for which a version that GitHub refuses is tried again: it has refused
#: current ones in outages.
VERSION_REFUSED_SECONDS = 600.0

#: Categories of a failed registration that another attempt may resolve.
RETRYABLE = ("transient", "infrastructure")

#: Deaths in a row after which a new watcher reads no logs and no hooks.
MINIMAL_AFTER_DEATHS = 3


def provide_runner(
    vm: Vm,
    moment: Moment,
    delay_seconds: float = 0.0,
    keep_registration: bool = False,
    instead_of: str = "",
) -> Step:
    """Have a runner registered and launched; reuse the last registration if it may."""
    kept = keep_registration and bool(vm.name)
    name = vm.name if kept else vm.next_name
    former = vm.runner["run_id"] if vm.runner else vm.former_run
    spent = list(vm.spent_tokens)
    order = ProvideRunner(name, delay_seconds, kept, instead_of, spent, former)
    vm = vm.enter(
        State.REGISTERING_RUNNER,
        moment,
        runner=None,
        former_run=former,
        registered=kept and vm.registered,
        finished=False,
        stopped_by=None,
        registrations=vm.registrations + (not kept),
        name=name,
    )
    return vm, [GiveOrder(order)]


def instruct_worker(vm: Vm, fact: WorkerStarted, moment: Moment) -> Step:
    """Give a new worker the orders that the one before it took with it."""
    return vm, [
        GiveOrder(order)
        for order in standing_orders(vm, moment.now, fact.deaths)
        if order.to == fact.worker
    ]


def standing_orders(vm: Vm, now: float, deaths: int = 0) -> list[Order]:
    """The orders that hold in this state; `deaths` is how many watchers died of it."""
    if vm.state is State.INITIALIZING or vm.flushing:
        return []
    orders: list[Order] = [
        RenewCredentials(identity)
        for identity, kind in vm.commands.items()
        if kind == "RotateCredentials"
    ]
    if vm.runner:
        minimal = deaths >= MINIMAL_AFTER_DEATHS
        orders.append(WatchRunner(vm.runner["run_id"], minimal))
    elif vm.state is State.REGISTERING_RUNNER:
        # A registration that the dead watcher achieved is used, not repeated.
        spent = list(vm.spent_tokens)
        orders.append(ProvideRunner(vm.name, 0.0, True, "", spent, vm.former_run))
    if vm.state is State.DRAINING:
        orders.append(DrainRunner())
    if vm.state is State.SHUTTING_DOWN or vm.stopped_by:
        orders.append(stop_order(vm, now))
    return orders


def note_token(vm: Vm, fact: TokenSpent, moment: Moment) -> Step:
    """Remember a registration token so that it is not used twice."""
    vm = vm.replace(spent_tokens=(*vm.spent_tokens, fact.sha256)[-16:])
    return vm.mark("token", moment), []


def note_launch(vm: Vm, fact: RunnerLaunched, moment: Moment) -> Step:
    """Remember the run before anything depends on it, if it is the one asked for."""
    if fact.runner["name"] != vm.name:
        return vm, []
    vm = vm.replace(runner=fact.runner, finished=False)
    return vm.mark("configured", moment), []


def note_fault(vm: Vm, fact: FaultNoted, moment: Moment) -> Step:
    """Report it; the worker that found it continues."""
    return vm, [Emit(Error(**vars(fact)))]


def become_idle(vm: Vm, fact: RunnerListening, moment: Moment) -> Step:
    """The runner listens, newly registered or adopted."""
    vm, effects = note_listening(vm, fact, moment)
    state = State.JOB_RUNNING if vm.job else State.IDLE
    return vm.enter(state, moment), effects


def note_listening(vm: Vm, fact: RunnerListening, moment: Moment) -> Step:
    """Tell of the registration, once."""
    runner = {**(vm.runner or {}), **fact.runner}
    vm = vm.replace(runner=runner, failed_start=None).mark("listening", moment)
    if vm.registered and runner.get("agent_id") in (None, vm.agent_id):
        # The listener was started again under the registration that was reported.
        return vm, []
    event = RunnerRegistered(
        runner_name=runner["name"],
        runner_id=runner.get("agent_id"),
        runner_version=runner.get("version"),
        labels=runner.get("labels", []),
        runner_group=runner.get("runner_group"),
        runner_url=runner.get("runner_url"),
        attempts=fact.attempts,
        duration_seconds=fact.duration_seconds,
        timeline=vm.timeline,
    )
    return vm.replace(registered=True, agent_id=runner.get("agent_id")), [Emit(event)]


def begin_job(vm: Vm, fact: JobSeen, moment: Moment) -> Step:
    """The first sign of a job, or a sign of the job of an adopted runner."""
    if vm.finished:
        return vm, []
    vm = vm.enter(State.JOB_RUNNING, moment)
    return (vm if vm.job else start_job(vm, fact, moment)), []


def accept_late_job(vm: Vm, fact: JobSeen, moment: Moment) -> Step:
    """A job that was assigned while the machine was about to take no more."""
    if vm.finished or vm.job:
        return vm, []
    return start_job(vm, fact, moment), []


def stop_late_job(vm: Vm, fact: JobSeen, moment: Moment) -> Step:
    """A job that was assigned while the runner is being stopped is stopped with it."""
    if vm.finished or vm.job:
        return vm, []
    vm = start_job(vm, fact, moment)
    return vm.replace(stopped_by=vm.stopped_by or stop_cause(vm)), []


def after_job(vm: Vm, moment: Moment) -> Step:
    """What a machine does whose ephemeral runner has done its one job."""
    vm = vm.replace(crashes=0)
    if vm.end is None and vm.policy.after_job == "register":
        return provide_runner(vm, moment)
    return shut_down(vm, End("job_completed", "miglet"), moment)


def end_job(vm: Vm, fact: JobEnded, moment: Moment) -> Step:
    """The job is over."""
    if vm.job is None:
        return vm, []
    vm, effects = complete_job(vm, fact, moment)
    vm, more = after_job(vm, moment)
    return vm, [*effects, *more]


def runner_gone_with_job(vm: Vm, fact: RunnerExited, moment: Moment) -> Step:
    """The runner is gone, and its job with it."""
    vm, effects = complete_job(vm, fact, moment)
    vm, more = after_job(vm.replace(finished=True), moment)
    return vm, [*effects, *more]


def runner_drained(vm: Vm, fact: RunnerExited, moment: Moment) -> Step:
    """The runner has ended while no further job was wanted."""
    vm, effects = complete_job(vm, fact, moment)
    vm, more = shut_down(vm, vm.end or End("drained", "miglet"), moment)
    return vm, [*effects, *more]


def job_stopped(vm: Vm, fact: RunnerRemoved, moment: Moment) -> Step:
    """The runner was stopped because of its job, and nobody saw the job's end."""
    if vm.job is None or vm.stopping_since is None:
        return vm, []
    reason = "no runner was left when the job was stopped"
    vm, effects = lose_job(vm, moment, vm.stopped_by or "unknown", reason)
    vm, more = after_job(vm, moment)
    return vm, [*effects, *more]


def runner_gone(vm: Vm, fact: RunnerExited, moment: Moment) -> Step:
    """The runner ended without a job: once more, unless that cannot help."""
    if vm.finished:
        return after_job(vm, moment)
    evidence, ending = read_end(vm, fact)
    found = crash(ending, evidence) or _IN_ORDER
    if found.kind == "version_deprecated":
        return _version_refused(vm, found, moment)
    vm = vm.replace(crashes=vm.crashes + 1)
    gives_up = found.next_step == GIVE_UP or vm.crashes > vm.policy.max_restarts
    reports: list[Effect] = []
    if found.abnormal:
        reports.append(report_crash(vm, crash_of(fact), not gives_up))
    error = _end_of_runner(vm, fact, found)
    if gives_up:
        vm, effects = fail(vm, [error], errors.UNAVAILABLE, moment)
        return vm, [*reports, *effects]
    kept = found.next_step == RELAUNCH
    vm, effects = provide_runner(vm, moment, _delay(vm), keep_registration=kept)
    return vm, [*(reports or [Emit(error)]), *effects]


def _version_refused(vm: Vm, found: Crash, moment: Moment) -> Step:
    """GitHub refuses the runner's version: try again for a while, report it once."""
    first, last = vm.version_refused or (moment.now, moment.now)
    if moment.now - last > VERSION_REFUSED_SECONDS:
        first = moment.now
    known = vm.version_refused is not None and first != moment.now
    vm = vm.replace(crashes=vm.crashes + 1, version_refused=(first, moment.now))
    version = (vm.runner or {}).get("version") or "of the image"
    error = Error(
        category="misconfig",
        code=found.kind,
        message=f"GitHub refuses the runner's version {version}: {found.reason}",
        component="runner",
        hint="bake a current release of actions/runner into the image",
    )
    if moment.now - first >= VERSION_REFUSED_SECONDS:
        return fail(vm, [error], errors.MISCONFIGURED, moment)
    vm, effects = provide_runner(vm, moment, _delay(vm), keep_registration=True)
    return vm, [*([] if known else [Emit(error)]), *effects]


def runner_gone_meanwhile(vm: Vm, fact: RunnerExited, moment: Moment) -> Step:
    """The runner ended while no MIGlet was there to see it."""
    if vm.job:
        return runner_gone_with_job(vm, fact, moment)
    return runner_gone(vm, fact, moment)


def _end_of_runner(vm: Vm, fact: RunnerExited, found: Crash) -> Error:
    last = f"; its last line: {fact.last_lines[-1][:300]}" if fact.last_lines else ""
    count = f"end {vm.crashes} in a row without a job"
    return Error(
        category="infrastructure",
        code=found.kind,
        message=f"{found.reason} ({count}){last}",
        component="runner",
        hint="the runner's _diag logs have more; see docs/troubleshooting.rst",
    )


def _delay(vm: Vm) -> float:
    steps = min(vm.crashes - 1, 16)
    return min(vm.policy.max_backoff, vm.policy.initial_backoff * 2**steps)


def handle_failing_runner(vm: Vm, fact: RunnerFailing, moment: Moment) -> Step:
    """A runner that looks alive and is not: replace it."""
    if vm.job:
        return note_failing_runner(vm, fact, moment)
    error = _error_of(fact)
    vm = vm.replace(crashes=vm.crashes + 1)
    if vm.crashes > vm.policy.max_restarts:
        return fail(vm, [error], errors.UNAVAILABLE, moment)
    vm, effects = provide_runner(vm, moment, instead_of=fact.run_id)
    return vm, [Emit(error), *effects]


def note_failing_runner(vm: Vm, fact: RunnerFailing, moment: Moment) -> Step:
    """The watcher deals with it (`worker_stuck`), and the job's end follows."""
    return vm, [Emit(_error_of(fact), vm.job.reference if vm.job else None)]


def drain_failing_runner(vm: Vm, fact: RunnerFailing, moment: Moment) -> Step:
    """A runner that will never take a job need not be waited for."""
    if vm.job:
        return note_failing_runner(vm, fact, moment)
    vm, effects = shut_down(vm, vm.end or End("drained", "miglet"), moment)
    return vm, [Emit(_error_of(fact)), *effects]


def _error_of(fact: RunnerFailing) -> Error:
    return Error("infrastructure", fact.code, fact.message, "runner")


def registration_failed(vm: Vm, fact: RegistrationFailed, moment: Moment) -> Step:
    """No runner could be registered: once more, if that may help."""
    error = Error(fact.category, fact.code, fact.message, "runner", fact.hint)
    vm = vm.replace(crashes=vm.crashes + 1)
    if fact.category in RETRYABLE and vm.crashes <= vm.policy.max_restarts:
        # What was registered by then is used, not repeated.
        vm, effects = provide_runner(vm, moment, _delay(vm), keep_registration=True)
        return vm, [Emit(error), *effects]
    return fail(vm, [error], fact.exit_status, moment)
