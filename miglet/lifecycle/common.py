"""How jobs, runners and the machine come to an end: the rules that more than one
state shares. Pure, like every rule.
"""

from __future__ import annotations

import dataclasses

from miglet.job.evidence import Evidence
from miglet.job.signs import JobResult
from miglet.job.verdict import Ending, Verdict, verdict
from miglet.lifecycle.effects import (
    Effect,
    Emit,
    Exit,
    SetTimer,
    StopCrew,
    StopTimer,
    Tell,
)
from miglet.lifecycle.vm import (
    TELLING_SECONDS,
    USAGE,
    End,
    Job,
    Moment,
    Policy,
    State,
    Vm,
    grown,
)
from miglet.messages.events import (
    Error,
    JobCompleted,
    JobStarted,
    RunnerCrashed,
    VMShuttingDown,
    timestamp,
)
from miglet.messages.facts import JobResultSeen, RunnerExited
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner

Step = tuple[Vm, list[Effect]]

#: Seconds within which a job is announced even if nobody knows what it is.
ANNOUNCE_SECONDS = 2.0

#: Seconds after the grace period that killing and deregistering may take.
REMOVAL_SECONDS = 15.0

#: Most seconds that the Error event may take before the shutdown goes on.
ERROR_SECONDS = 5.0

#: How long before this moment a job can have ended, if the clocks are to be believed.
LATEST_SECONDS = 3600.0

#: Timers that belong to a job or a runner and end with them.
RUNNING_TIMERS = ("announce", "max_job", "idle")


def began(vm: Vm, job: Job, moment: Moment) -> Step:
    """The job is on the machine; its announcement waits a little for its identity."""
    effects: list[Effect] = [
        StopTimer("idle"),
        SetTimer("announce", ANNOUNCE_SECONDS),
    ]
    vm = vm.having(job=job)
    return vm.marked("first_job", moment), [*effects, *job_timer(vm, moment)]


def job_timer(vm: Vm, moment: Moment) -> list[Effect]:
    """The timer of ``runner.max_job_duration`` for the job that runs, if one does."""
    limit = vm.policy.max_job_duration
    if vm.job is None or not limit:
        return []
    return [SetTimer("max_job", max(0.0, vm.job.seen_now + limit - moment.now))]


def idle_timer(vm: Vm, moment: Moment) -> list[Effect]:
    """The timer of ``runner.idle_timeout``, while the runner waits for a job."""
    limit = vm.policy.idle_timeout
    if vm.state is not State.IDLE or not limit:
        return []
    return [SetTimer("idle", max(0.0, vm.since + limit - moment.at))]


def with_policy(vm: Vm, policy: Policy, moment: Moment) -> Step:
    """The machine under changed settings, which hold for what already runs, too."""
    vm = vm.having(policy=policy)
    timers = [*idle_timer(vm, moment), *job_timer(vm, moment)]
    return vm, [StopTimer("idle"), StopTimer("max_job"), *timers]


def announced(vm: Vm) -> Step:
    """JobStarted, if it is not in the journal yet."""
    job = vm.job
    if job is None or job.announced:
        return vm, []
    told = job.told(
        "name",
        "repository",
        "workflow",
        "ref",
        "commit",
        "run_attempt",
        "actor",
        "event_name",
    )
    event = JobStarted(source=job.source, **told)
    started = Job(**{**vars(job), "announced": True})
    return vm.having(job=started), [StopTimer("announce"), Emit(event, job.reference)]


def seen(vm: Vm, fact: JobResultSeen | RunnerExited) -> tuple[Ending, Evidence]:
    """The runner's end as it was seen, and what we did to the runner ourselves."""
    cause = vm.stopped_by or ("termination_notice" if vm.notices else None)
    ending = dataclasses.replace(Ending.of_json(fact.ending), stopped_by=cause)
    return ending, Evidence.of_json(fact.evidence)


def completed(vm: Vm, fact: JobResultSeen | RunnerExited, moment: Moment) -> Step:
    """JobCompleted for the job at hand, after its JobStarted."""
    if vm.job is None:
        return vm, []
    ending, evidence = seen(vm, fact)
    identity = dataclasses.asdict(evidence.identity)
    vm = vm.having(job=vm.job.learnt(identity).used(fact.usage))
    return concluded(vm, verdict(evidence, ending), _told_at(evidence, moment))


def _told_at(evidence: Evidence, moment: Moment) -> Moment:
    """When the runner told the result, which is a little before we knew."""
    late = moment.at - (evidence.at(JobResult) or moment.at)
    late = min(max(0.0, late), LATEST_SECONDS)
    return Moment(moment.at - late, moment.now - late)


def concluded(vm: Vm, found: Verdict, moment: Moment) -> Step:
    """JobCompleted with this verdict; the machine has no job any more."""
    vm, effects = announced(vm)
    job = vm.job
    if job is None:
        return vm, effects
    event = completion(job, found, moment)
    stops = [StopTimer(name) for name in RUNNING_TIMERS]
    vm = vm.having(job=None, finished=True)
    return vm, [*effects, *stops, Emit(event, job.reference)]


def completion(job: Job, found: Verdict, moment: Moment) -> JobCompleted:
    """The event that closes `job`."""
    return JobCompleted(
        result=found.result,
        cause=found.cause,
        exit_code=found.exit_code,
        started_at=timestamp(job.seen_at),
        finished_at=timestamp(moment.at),
        duration_seconds=round(max(0.0, moment.now - job.seen_now), 3),
        resource_usage=grown(dict.fromkeys(USAGE), job.usage),
        evidence=list(found.reasons),
        **job.told("repository", "workflow", "ref", "commit", "run_attempt"),
    )


def crashed(vm: Vm, fact: JobResultSeen | RunnerExited, will_retry: bool) -> Emit:
    """RunnerCrashed, with the last that the runner said."""
    event = RunnerCrashed(
        exit_code=fact.ending.get("exit_code"),
        signal=fact.ending.get("signal"),
        last_lines=fact.last_lines,
        attempt=max(1, vm.crashes),
        will_retry=will_retry,
    )
    return Emit(event, vm.job.reference if vm.job else None)


def provided(
    vm: Vm,
    moment: Moment,
    delay_seconds: float = 0.0,
    keep_registration: bool = False,
    instead_of: str = "",
) -> Step:
    """A registration is under way: a new one, unless the last can be kept."""
    kept = keep_registration and bool(vm.name)
    name = vm.name if kept else vm.next_name
    spent = list(vm.spent_tokens)
    former = vm.runner["run_id"] if vm.runner else vm.former_run
    order = ProvideRunner(name, delay_seconds, kept, instead_of, spent, former)
    vm = vm.entered(
        State.REGISTERING_RUNNER,
        moment,
        runner=None,
        former_run=former,
        registered=False,
        finished=False,
        stopped_by=None,
        registrations=vm.registrations + (not kept),
        name=name,
    )
    return vm, [StopTimer("give_up"), Tell(order)]


def after_job(vm: Vm, moment: Moment) -> Step:
    """What a machine does whose ephemeral runner has done its one job."""
    vm = vm.having(crashes=0)
    if vm.end is None and vm.policy.after_job == "register":
        return provided(vm, moment)
    return shut_down(vm, End("job_completed", "miglet"), moment)


def drained(vm: Vm, end: End, moment: Moment) -> Step:
    """Take no new job; the end comes when the present one is over."""
    if vm.state in (State.DRAINING, State.SHUTTING_DOWN, State.ERROR):
        return vm, []
    if vm.job is None and vm.state is not State.IDLE:
        return shut_down(vm, end, moment)
    return vm.entered(State.DRAINING, moment, end=vm.end or end), [
        StopTimer("idle"),
        Tell(DrainRunner()),
    ]


def shut_down(vm: Vm, end: End, moment: Moment) -> Step:
    """Stop what runs, take back the registration, deliver the last events, exit."""
    if vm.state is State.SHUTTING_DOWN:
        return vm, []
    end = vm.end or end
    effects: list[Effect] = [StopTimer(name) for name in (*RUNNING_TIMERS, "give_up")]
    if not end.told:
        event = VMShuttingDown(end.reason, end.requested_by, round(moment.now, 3))
        effects.append(Emit(event))
    told = End(end.reason, end.requested_by, end.exit_status, told=True)
    cause = "termination_notice" if vm.notices else "shutdown"
    stopped_by = vm.stopped_by or (cause if vm.job else None)
    vm = vm.entered(State.SHUTTING_DOWN, moment, end=told, stopped_by=stopped_by)
    if not vm.name:
        # No runner was ever asked for: there is nothing to stop or to take back.
        vm, more = flushed(vm, moment)
        return vm, [*effects, *more]
    settle = vm.policy.drain_settle if vm.finished else 0.0
    limit = settle + vm.policy.grace_period + REMOVAL_SECONDS
    order = StopRunner(settle, hasty_grace(vm, moment.now))
    return vm, [*effects, Tell(order), SetTimer("stop", limit)]


def last_call(vm: Vm, moment: Moment) -> list[Effect]:
    """The timer for the earliest of all announced ends of the machine."""
    left = vm.seconds_left(moment.now)
    if left is None:
        return []
    return [SetTimer("notice", max(0.0, left - vm.policy.last_seconds))]


def hasty_grace(vm: Vm, now: float) -> float | None:
    """What the machine's announced end leaves of the grace period; None: all of it."""
    left = vm.seconds_left(now)
    if left is None or left - TELLING_SECONDS >= vm.policy.grace_period:
        return None
    return max(0.0, left - TELLING_SECONDS)


def stop_now(vm: Vm, end: End, moment: Moment, stopped_by: str = "shutdown") -> Step:
    """As `shut_down`, and the job, if there is one, is stopped for this reason."""
    if vm.job and vm.stopped_by is None:
        vm = vm.having(stopped_by=stopped_by)
    if vm.state is State.DRAINING and vm.end:
        end = vm.end
    return shut_down(vm, end, moment)


def flushed(vm: Vm, moment: Moment) -> Step:
    """Nothing runs any more: deliver what is left, but not for ever."""
    if vm.flushing:
        return vm, []
    limit = vm.policy.grace_period
    return vm.having(flushing=True), [
        StopTimer("stop"),
        StopCrew(),
        SetTimer("flush", limit),
    ]


def exited(vm: Vm, moment: Moment) -> Step:
    """The program ends."""
    return vm, [Exit(vm.end.exit_status if vm.end else 0)]


def failed(vm: Vm, errors: list[Error], exit_status: int, moment: Moment) -> Step:
    """A terminal fault: tell the controller, then shut down with this status."""
    if vm.state in (State.ERROR, State.SHUTTING_DOWN):
        return vm, [Emit(error) for error in errors]
    end = End(errors[0].code, "miglet", exit_status)
    vm = vm.entered(State.ERROR, moment, end=end)
    emitted: list[Effect] = [Emit(error) for error in errors]
    return vm, [*emitted, StopTimer("give_up"), SetTimer("error", ERROR_SECONDS)]
