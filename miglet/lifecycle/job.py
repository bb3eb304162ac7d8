"""The rules about the job: seen, identified, announced, over.

Pure, like every rule; which one holds in which state, the table in `lifecycle` tells.
"""

from __future__ import annotations

from miglet.job.verdict import crash
from miglet.lifecycle.common import (
    Step,
    after_job,
    announced,
    began,
    completed,
    crashed,
    seen,
    shut_down,
)
from miglet.lifecycle.effects import Effect, Tell
from miglet.lifecycle.vm import End, Job, Moment, State, Vm
from miglet.messages.facts import (
    JobIdentified,
    JobResultSeen,
    JobSampled,
    JobSeen,
    RunnerExited,
)
from miglet.messages.orders import StopRunner


def begin_job(vm: Vm, fact: JobSeen, moment: Moment) -> Step:
    """The first sign of a job."""
    if vm.finished:
        return vm, []
    vm = vm.entered(State.JOB_RUNNING, moment)
    return began(vm, _job_of(fact, moment), moment)


def slip_in(vm: Vm, fact: JobSeen, moment: Moment) -> Step:
    """A job that was assigned while the listener was being stopped."""
    if vm.finished or vm.job:
        return vm, []
    return began(vm, _job_of(fact, moment), moment)


def _job_of(fact: JobSeen, moment: Moment) -> Job:
    age = max(0.0, moment.at - fact.seen_at)
    return Job(fact.run_id, fact.source, fact.seen_at, seen_now=moment.now - age)


def identify_job(vm: Vm, fact: JobIdentified, moment: Moment) -> Step:
    """What is known of the job; enough of it is announced at once."""
    if vm.job is None:
        return vm, []
    job = vm.job.learnt(fact.identity)
    if not job.announced:
        job = Job(**{**vars(job), "source": fact.source})
    vm = vm.having(job=job)
    return announced(vm) if job.identity.get("run_id") else (vm, [])


def note_usage(vm: Vm, fact: JobSampled, moment: Moment) -> Step:
    """What the job has used so far."""
    return vm.having(job=vm.job.used(fact.usage) if vm.job else None), []


def end_job(vm: Vm, fact: JobResultSeen, moment: Moment) -> Step:
    """The runner has told the job's end."""
    if vm.job is None:
        return vm, []
    vm, effects = _completed(vm, fact, moment)
    vm, more = after_job(vm, moment)
    return vm, [*effects, *more]


def _completed(vm: Vm, fact: JobResultSeen | RunnerExited, moment: Moment) -> Step:
    found = crash(*seen(vm, fact))
    told: list[Effect] = []
    if found and found.abnormal:
        told = [crashed(vm, fact, vm.policy.after_job == "register" and not vm.end)]
    vm, effects = completed(vm, fact, moment)
    return vm, [*told, *effects]


def end_job_with_runner(vm: Vm, fact: RunnerExited, moment: Moment) -> Step:
    """The runner is gone; whatever the job's end was, it is told now."""
    vm, effects = _completed(vm, fact, moment)
    vm, more = after_job(vm.having(finished=True), moment)
    return vm, [*effects, *more]


def finish_drain(vm: Vm, fact: RunnerExited, moment: Moment) -> Step:
    """The runner has ended while no further job was wanted."""
    vm, effects = _completed(vm, fact, moment)
    vm, more = shut_down(vm, vm.end or End("drained", "miglet"), moment)
    return vm, [*effects, *more]


def complete_late(vm: Vm, fact: JobResultSeen | RunnerExited, moment: Moment) -> Step:
    """A job that is stopped with the machine has an end, too."""
    return completed(vm, fact, moment)


def announce_late(vm: Vm, moment: Moment) -> Step:
    """Nothing has told what the job is: announce it all the same."""
    return announced(vm)


def job_too_long(vm: Vm, moment: Moment) -> Step:
    """The job is over its runner.max_job_duration: stop it."""
    if vm.job is None or vm.stopped_by:
        return vm, []
    return vm.having(stopped_by="timeout"), [Tell(StopRunner())]
