"""What is done about the job: it begins, is announced, identified, closed.

Pure, like every rule. What the machine does after a job is in `runner`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from miglet.formats import rfc3339
from miglet.job.evidence import Evidence
from miglet.job.signs import JobResult
from miglet.job.verdict import RunnerExit, crash, verdict
from miglet.lifecycle.effects import Effect, Emit
from miglet.lifecycle.vm import USAGE, Job, Moment, Vm, maximum_usage
from miglet.messages import facts
from miglet.messages.events import (
    DESCRIPTION_KEYS,
    Error,
    Event,
    JobCompleted,
    JobStarted,
    RunnerCrashed,
)

Step = tuple[Vm, list[Effect]]

#: How long before this moment a job can have ended, if the clocks are to be believed.
LATEST_SECONDS = 3600.0

#: Why a job is stopped whose Listener died and that did not end in time; GitHub has
#: given it up by then.
ORPHAN_TIMEOUT = "orphan_timeout"

#: Causes of an unknown result that the machine's announced end explains.
EXPLAINED_BY_NOTICE = ("runner_crash", "worker_crash", "unknown")


def start_job(vm: Vm, fact: facts.JobSeen, moment: Moment) -> Vm:
    """A job is on the machine; its JobStarted waits a little for its identity."""
    age = max(0.0, moment.at - fact.seen_at)
    job = Job(
        run=fact.run_id,
        source=fact.source,
        seen_at=fact.seen_at,
        seen_now=moment.now - age,
        heard_now=moment.now,
    )
    return vm.replace(job=job).mark("first_job", moment)


def announce_job(vm: Vm) -> Step:
    """Emit JobStarted, unless it is in the journal."""
    job = vm.job
    if job is None or job.announced:
        return vm, []
    event = JobStarted(source=job.source, **_description(job, JobStarted))
    started = dataclasses.replace(job, announced=True)
    return vm.replace(job=started), [Emit(event, job.reference)]


def _description(job: Job, event: type[Event]) -> dict[str, Any]:
    """What this type of event says of the job."""
    wanted = {each.name for each in dataclasses.fields(event)}  # type: ignore[arg-type]
    keys = (key for key in DESCRIPTION_KEYS if key in wanted)
    return job.fields(*keys)


def identify_job(vm: Vm, fact: facts.JobIdentified, moment: Moment) -> Step:
    """Learn who the job is, and announce it as soon as its workflow run is known."""
    if vm.job is None:
        return vm, []
    vm, effects = _learn(vm, fact.identity)
    assert vm.job
    if vm.job.announced or not vm.job.identity.get("run_id"):
        return vm, effects
    vm = vm.replace(job=dataclasses.replace(vm.job, source=fact.source))
    vm, announced = announce_job(vm)
    return vm, [*effects, *announced]


def _learn(vm: Vm, identity: dict[str, Any]) -> Step:
    """Add to the job's identity; a contradiction changes nothing and is reported."""
    assert vm.job
    job = vm.job.learn(identity)
    contradictions = vm.job.contradictions(identity)
    if not contradictions or job.contradicted:
        return vm.replace(job=job), []
    said = ", ".join(
        f"{key} {str(identity[key])[:100]!r} after {str(job.identity[key])[:100]!r}"
        for key in contradictions
    )
    error = Error(
        category="infrastructure",
        code="job_identity_contradicted",
        message=f"the job's identity was contradicted and stays as it was: {said}",
        component="runner",
        hint="a job can write to the runner's logs; GitHub's API is the authority",
    )
    job = dataclasses.replace(job, contradicted=True)
    return vm.replace(job=job), [Emit(error, job.reference)]


def note_usage(vm: Vm, fact: facts.JobSampled, moment: Moment) -> Step:
    """Remember what the job has used so far."""
    return vm.replace(job=vm.job.add_usage(fact.usage) if vm.job else None), []


def orphan_job(vm: Vm, fact: facts.ListenerDied, moment: Moment) -> Step:
    """Tell of the Listener's death at once; its Worker goes on with the job.

    The Worker reports the job's result to GitHub by itself (runner.orphan_timeout).
    """
    if vm.job is None or vm.orphaned_since is not None or not fact.job_continues:
        return vm, []
    event = RunnerCrashed(
        exit_code=fact.exit_code,
        signal=fact.signal,
        last_lines=fact.last_lines,
        attempt=max(1, vm.crashes),
        will_retry=False,
    )
    crashed = Emit(event, vm.job.reference)
    return vm.replace(orphaned_since=moment.now), [crashed]


def complete_job(
    vm: Vm, fact: facts.JobEnded | facts.RunnerExited, moment: Moment
) -> Step:
    """Emit JobCompleted, after JobStarted, and RunnerCrashed if something broke."""
    if vm.job is None:
        return vm, []
    effects: list[Effect] = []
    if isinstance(fact, facts.JobEnded):
        ended = fact
    else:
        identity = dataclasses.asdict(Evidence.of_json(fact.evidence).identity)
        vm, effects = _learn(vm, identity)
        ended = decide_end(vm, fact, moment)
    if ended.crash and vm.orphaned_since is None:
        will_retry = vm.policy.after_job == "register" and not vm.end
        effects.append(report_crash(vm, ended.crash, will_retry))
    vm, closing = _close_job(vm, ended, moment)
    return vm, [*effects, *closing]


def decide_end(vm: Vm, fact: facts.RunnerExited, moment: Moment) -> facts.JobEnded:
    """The verdict on a job, from the evidence of a run that reported none itself."""
    evidence, runner_exit = read_end(vm, fact)
    found, broken = verdict(evidence, runner_exit), crash(runner_exit, evidence)
    return facts.JobEnded(
        run_id=fact.run_id,
        result=found.result,
        cause=found.cause,
        exit_code=found.exit_code,
        finished_at=evidence.at(JobResult) or moment.at,
        evidence=list(found.reasons),
        resource_usage=fact.usage,
        crash=crash_of(fact) if broken and broken.abnormal else None,
    )


def read_end(vm: Vm, fact: facts.RunnerExited) -> tuple[Evidence, RunnerExit]:
    """The evidence and the end of a run, with what we did to the runner ourselves."""
    cause = vm.stopped_by or ("termination_notice" if vm.notices else None)
    runner_exit = RunnerExit.of_json({**fact.runner_exit, "stopped_by": cause})
    return Evidence.of_json(fact.evidence), runner_exit


def crash_of(fact: facts.RunnerExited) -> dict[str, Any]:
    """The fields of a RunnerCrashed."""
    return {
        "exit_code": fact.runner_exit.get("exit_code"),
        "signal": fact.runner_exit.get("signal"),
        "last_lines": fact.last_lines,
    }


def report_crash(vm: Vm, end: dict[str, Any], will_retry: bool) -> Emit:
    """RunnerCrashed for the present run."""
    event = RunnerCrashed(
        exit_code=end.get("exit_code"),
        signal=end.get("signal"),
        last_lines=end.get("last_lines", []),
        attempt=max(1, vm.crashes),
        will_retry=will_retry,
    )
    return Emit(event, vm.job.reference if vm.job else None)


def lose_job(vm: Vm, moment: Moment, cause: str, reason: str) -> Step:
    """Close a job whose end nobody saw as unknown; a job is never left open."""
    if vm.job is None:
        return vm, []
    lost = facts.JobEnded(
        run_id=vm.job.run,
        result="unknown",
        cause=cause,
        exit_code=None,
        finished_at=moment.at,
        evidence=[reason],
        resource_usage={},
    )
    return _close_job(vm, lost, moment)


def _close_job(vm: Vm, ended: facts.JobEnded, moment: Moment) -> Step:
    vm, effects = announce_job(vm)
    assert vm.job
    job = vm.job.add_usage(ended.resource_usage)
    late = min(max(0.0, moment.at - ended.finished_at), LATEST_SECONDS)
    duration = moment.now - late - job.seen_now
    result, cause = _result_of(vm, ended)
    event = JobCompleted(
        result=result,
        cause=cause,
        exit_code=ended.exit_code,
        started_at=rfc3339(job.seen_at),
        finished_at=rfc3339(moment.at - late),
        duration_seconds=round(max(0.0, duration), 3),
        resource_usage=maximum_usage(dict.fromkeys(USAGE), job.usage),
        evidence=ended.evidence,
        **_description(job, JobCompleted),
    )
    vm = vm.replace(
        job=None,
        finished=True,
        orphaned_since=None,
        stopping_since=None,
    )
    return vm, [*effects, Emit(event, job.reference)]


def _result_of(vm: Vm, ended: facts.JobEnded) -> tuple[str, str]:
    """Result and cause, with what the watcher cannot know: why we stopped the run."""
    if ended.cause == ORPHAN_TIMEOUT:
        return "unknown", "runner_crash"
    if ended.result == "unknown" and vm.notices and ended.cause in EXPLAINED_BY_NOTICE:
        return "unknown", "termination_notice"
    return ended.result, ended.cause
