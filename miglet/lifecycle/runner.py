"""The rules about the runner: launched, listening, gone, troubled.

Pure, like every rule; which one holds in which state, the table in `lifecycle` tells.
"""

from __future__ import annotations

from miglet import errors
from miglet.job.verdict import GIVE_UP, RELAUNCH, Crash, crash
from miglet.lifecycle.common import (
    Step,
    after_job,
    began,
    crashed,
    drained,
    failed,
    idle_timer,
    last_call,
    provided,
    seen,
    shut_down,
)
from miglet.lifecycle.effects import Effect, Emit, StopTimer
from miglet.lifecycle.job import end_job_with_runner
from miglet.lifecycle.vm import End, Moment, State, Vm
from miglet.messages.events import Error, RunnerRegistered
from miglet.messages.facts import (
    FaultNoted,
    RegistrationFailed,
    RunnerExited,
    RunnerLaunched,
    RunnerListening,
    RunnerTroubled,
    TokenSpent,
)

#: A runner that ended in order, though nobody wanted it to end.
_AS_ASKED = Crash("ended_without_job", "reregister", False, "it ended in order")


def note_token(vm: Vm, fact: TokenSpent, moment: Moment) -> Step:
    """Remember a registration token so that it is not used twice."""
    vm = vm.having(spent_tokens=(*vm.spent_tokens, fact.sha256)[-16:])
    return vm.marked("token", moment), []


def note_launch(vm: Vm, fact: RunnerLaunched, moment: Moment) -> Step:
    """Remember the run before anything depends on it, if it is the one asked for."""
    if fact.runner["name"] != vm.name:
        return vm, []
    vm = vm.having(runner=fact.runner, registered=False, finished=False)
    return vm.marked("configured", moment), []


def note_fault(vm: Vm, fact: FaultNoted, moment: Moment) -> Step:
    """The controller is told; whoever found it goes on by itself."""
    return vm, [Emit(Error(**vars(fact)))]


def become_idle(vm: Vm, fact: RunnerListening, moment: Moment) -> Step:
    """The runner is there, newly registered or found again."""
    vm, effects = _registered(vm.marked("listening", moment), fact)
    job = vm.job
    if job:
        vm, begun = began(vm.entered(State.JOB_RUNNING, moment), job, moment)
        return _ended_if_wanted(vm, [*effects, *begun], moment)
    vm = vm.entered(State.IDLE, moment)
    return _ended_if_wanted(vm, [*effects, *idle_timer(vm, moment)], moment)


def _registered(vm: Vm, fact: RunnerListening) -> Step:
    runner = {**(vm.runner or {}), **fact.runner}
    vm = vm.having(runner=runner)
    if vm.registered:
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
    return vm.having(registered=True), [Emit(event)]


def _ended_if_wanted(vm: Vm, effects: list[Effect], moment: Moment) -> Step:
    """An end that was decided before MIGlet was started again still holds."""
    if vm.end is None:
        return vm, effects
    go = shut_down if vm.finished or vm.end.told else drained
    vm, more = go(vm, vm.end, moment)
    return vm, [*effects, *more, *last_call(vm, moment)]


def runner_gone(vm: Vm, fact: RunnerExited, moment: Moment) -> Step:
    """The runner ended without a job: once more, unless that is hopeless."""
    if vm.finished:
        return after_job(vm, moment)
    vm = vm.having(crashes=vm.crashes + 1)
    found = crash(*seen(vm, fact)) or _AS_ASKED
    hopeless = found.next_step == GIVE_UP or vm.crashes > vm.policy.max_restarts
    told = [crashed(vm, fact, not hopeless)] if found.abnormal else []
    error = _end_of_runner(vm, fact, found)
    if hopeless:
        vm, effects = failed(vm, [error], errors.UNAVAILABLE, moment)
        return vm, [*told, *effects]
    delay = _delay(vm)
    kept = found.next_step == RELAUNCH
    vm, effects = provided(vm, moment, delay_seconds=delay, keep_registration=kept)
    return vm, [*(told or [Emit(error)]), *effects]


def runner_gone_meanwhile(vm: Vm, fact: RunnerExited, moment: Moment) -> Step:
    """The runner ended while no MIGlet was there to see it."""
    if vm.job:
        return end_job_with_runner(vm, fact, moment)
    if vm.end:
        return shut_down(vm, vm.end, moment)
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
    return min(vm.policy.max_backoff, vm.policy.initial_backoff * 2 ** (vm.crashes - 1))


def runner_troubled(vm: Vm, fact: RunnerTroubled, moment: Moment) -> Step:
    """A runner that looks alive and is not: replace it."""
    told = Error("infrastructure", fact.code, fact.message, "runner")
    vm = vm.having(crashes=vm.crashes + 1)
    if vm.crashes > vm.policy.max_restarts:
        return failed(vm, [told], errors.UNAVAILABLE, moment)
    vm, effects = provided(vm, moment, instead_of=fact.run_id)
    return vm, [Emit(told), StopTimer("idle"), *effects]


def drain_troubled(vm: Vm, fact: RunnerTroubled, moment: Moment) -> Step:
    """A runner that will never take a job need not be waited for."""
    told = Error("infrastructure", fact.code, fact.message, "runner")
    vm, effects = shut_down(vm, vm.end or End("drained", "miglet"), moment)
    return vm, [Emit(told), *effects]


def registration_failed(vm: Vm, fact: RegistrationFailed, moment: Moment) -> Step:
    """No runner can be had."""
    told = Error(fact.category, fact.code, fact.message, "runner", fact.hint)
    return failed(vm, [told], fact.exit_status, moment)
