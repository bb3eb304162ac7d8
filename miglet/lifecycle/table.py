"""The lifecycle as one table: in each state, the facts that matter, their rules, and
where these may lead. Docs, tests and the model checker read it.

Every pair of a state and a fact has a row, or stands with its reason in IGNORED.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from miglet.errors import MigletError
from miglet.formats import canonical_command
from miglet.lifecycle import job, runner, shutdown, startup
from miglet.lifecycle.effects import (
    AcceptCommand,
    Effect,
    Emit,
    Exit,
    SetTimer,
    StopTimer,
)
from miglet.lifecycle.job import Step
from miglet.lifecycle.vm import (
    DELIVERY_SECONDS,
    KILL_SECONDS,
    Moment,
    Policy,
    State,
    Vm,
)
from miglet.messages import facts
from miglet.messages.codec import Fact, Value, frozen_value
from miglet.messages.events import CommandCompleted, Error

Rule = Callable[[Vm, Any, Moment], Step]


class ImpossibleTransition(MigletError):
    """A rule led to a state that its row does not name: a mistake in the table."""


class Row:
    """One row: a rule, and the states that it may lead to besides staying."""

    def __init__(self, rule: Rule, *to: State) -> None:
        self.rule = rule
        self.to = frozenset(to)

    def apply(self, vm: Vm, fact: Fact, moment: Moment) -> Step:
        """Let the rule decide; raises ImpossibleTransition if it errs."""
        after, effects = self.rule(vm, fact, moment)
        _require_declared(vm, after, self.to, fact)
        return after, effects


def _require_declared(vm: Vm, after: Vm, to: frozenset[State], fact: Fact) -> None:
    """Raise ImpossibleTransition unless the state stays or becomes one of `to`."""
    if after.state is not vm.state and after.state not in to:
        raise ImpossibleTransition(f"{vm.state} -> {after.state} on {fact!r}")


# Commands.

#: Accepted commands that may wait for their answers at the same time.
OPEN_COMMANDS_LIMIT = 64


class CommandRejected(MigletError):
    """The command makes no sense now; the message is the reason."""

    category = "user"


@frozen_value
class CommandDefinition(Value):
    """A command: its wire name, its rule, and the states that it may lead to."""

    name: str
    rule: Rule
    to: frozenset[State]
    #: Whether a later fact answers it, when it is known what came of it.
    answered_later: bool = False


#: The commands by canonical name; `miglet.commands` adds each with `command`.
COMMANDS: dict[str, CommandDefinition] = {}


def command(
    name: str, *to: State, answered_later: bool = False
) -> Callable[[Rule], Rule]:
    """Make the decorated rule the command `name`, which may lead to these states."""

    def add(rule: Rule) -> Rule:
        definition = CommandDefinition(name, rule, frozenset(to), answered_later)
        COMMANDS[canonical_command(name)] = definition
        return rule

    return add


class CommandsRow(Row):
    """The row of all commands: it leads where they lead, as far as `to` allows."""

    def __init__(self, *to: State) -> None:
        self.rule = obey_command
        self._allowed = frozenset(to)

    @property
    def to(self) -> frozenset[State]:  # type: ignore[override]
        """The states that a command leads to from here."""
        leads = frozenset().union(*(each.to for each in COMMANDS.values()))
        return leads & self._allowed


def accept_command(vm: Vm, fact: facts.CommandReceived, moment: Moment) -> Step:
    """Remember the command until it is answered; it is obeyed when it is validated."""
    if not fact.id:
        reason = "; ".join(fact.faults)
        return vm, [Emit(Error("user", "malformed_command", reason, "commands"))]
    if fact.id in vm.commands:
        return vm, []
    if len(vm.commands) >= OPEN_COMMANDS_LIMIT:
        reason = f"{OPEN_COMMANDS_LIMIT} commands wait for their answers already"
        return vm, [Emit(CommandCompleted(fact.id, fact.type, "rejected", reason))]
    known = COMMANDS.get(canonical_command(fact.type))
    name = known.name if known else fact.type
    vm = vm.replace(commands={**vm.commands, fact.id: name})
    return vm, [AcceptCommand(fact)]


def obey_command(vm: Vm, fact: facts.CommandValidated, moment: Moment) -> Step:
    """Obey or reject a command that was validated; one of the controller is answered.

    A validation that was lost is a failure of this machine, and rejects nothing.
    One that has its answer by now is not obeyed: the end of the machine answers all.
    """
    if fact.id and fact.id not in vm.commands:
        return vm, []
    if fact.failure:
        return _answer(vm, fact.id, "failed", fact.failure)
    known = COMMANDS.get(canonical_command(fact.type))
    try:
        if fact.faults or known is None:
            raise CommandRejected("; ".join(fact.faults) or "unknown command")
        if known.answered_later:
            return known.rule(vm, fact, moment)
        # Answered first: what it leads to may be the last event of the machine.
        answered, answer = _answer(vm, fact.id, "done", None)
        after, effects = known.rule(answered, fact, moment)
    except CommandRejected as rejection:
        return _answer(vm, fact.id, "rejected", str(rejection))
    return after, [*answer, *effects]


def credentials_renewed(vm: Vm, fact: facts.CredentialsRenewed, moment: Moment) -> Step:
    """The answer to RotateCredentials."""
    if fact.command_id not in vm.commands:
        return vm, []
    outcome = "failed" if fact.reason else "done"
    return _answer(vm, fact.command_id, outcome, fact.reason)


def _answer(vm: Vm, identity: str, outcome: str, reason: str | None) -> Step:
    """Only commands of the controller have an id and are answered by an event."""
    if not identity or identity not in vm.commands:
        return vm, []
    left = {key: kind for key, kind in vm.commands.items() if key != identity}
    answer = CommandCompleted(identity, vm.commands[identity], outcome, reason)
    return vm.replace(commands=left), [Emit(answer)]


# Facts.

#: Facts that have the same row in every state.
ANYWHERE = {
    facts.TokenSpent: Row(runner.note_token),
    facts.FaultNoted: Row(runner.note_fault),
    facts.WorkerStarted: Row(runner.instruct_worker),
    facts.JobSampled: Row(job.note_usage),
    facts.EventDelivered: Row(startup.note_delivery),
    facts.EventSetAside: Row(shutdown.event_set_aside),
    facts.CommandReceived: Row(accept_command),
    facts.CredentialsRenewed: Row(credentials_renewed),
}

#: The rows of every state in which jobs may still come.
IN_SERVICE = {
    **ANYWHERE,
    facts.WorkerLost: Row(shutdown.worker_lost, State.ERROR),
    facts.CommandValidated: CommandsRow(State.DRAINING, State.SHUTTING_DOWN),
    facts.TerminationNoticed: Row(
        shutdown.handle_notice, State.DRAINING, State.SHUTTING_DOWN
    ),
    facts.SignalReceived: Row(
        shutdown.handle_signal, State.DRAINING, State.SHUTTING_DOWN
    ),
}

#: Where the end of a runner may lead: to the next one, or to the end.
AFTER_RUNNER = (State.REGISTERING_RUNNER, State.SHUTTING_DOWN, State.ERROR)

#: The rows of a job on a machine in service.
OPEN_JOB = {
    facts.JobIdentified: Row(job.identify_job),
    facts.ListenerDied: Row(job.orphan_job),
    facts.JobEnded: Row(runner.end_job, State.REGISTERING_RUNNER, State.SHUTTING_DOWN),
}

#: The rows of a runner that is being stopped, with a job or without.
STOPPING_RUNNER = {
    facts.RunnerLaunched: Row(runner.note_launch),
    facts.JobSeen: Row(runner.stop_late_job),
    facts.JobIdentified: Row(job.identify_job),
    facts.ListenerDied: Row(job.orphan_job),
    facts.JobEnded: Row(job.complete_job),
    facts.RunnerExited: Row(job.complete_job),
    facts.RunnerFailing: Row(runner.note_failing_runner),
}

#: In each state, the facts that matter there and what they lead to. A row that follows
#: a group replaces the group's row for the same fact.
TABLE: dict[State, dict[type[Fact], Row]] = {
    State.INITIALIZING: {
        **ANYWHERE,
        facts.SettingsLoaded: Row(
            startup.resume, State.WAITING_FOR_CONTROLLER, State.SHUTTING_DOWN
        ),
        facts.SettingsRefused: Row(
            startup.refuse_settings, State.ERROR, State.SHUTTING_DOWN
        ),
        facts.PreflightDone: Row(
            startup.announce_machine, State.WAITING_FOR_CONTROLLER, State.ERROR
        ),
        facts.EventRefused: Row(startup.refuse_start, State.ERROR),
        facts.WorkerLost: Row(shutdown.report_lost_worker),
        facts.CommandValidated: CommandsRow(State.SHUTTING_DOWN),
        facts.TerminationNoticed: Row(shutdown.handle_notice, State.SHUTTING_DOWN),
        facts.SignalReceived: Row(shutdown.handle_signal, State.SHUTTING_DOWN),
    },
    State.WAITING_FOR_CONTROLLER: {
        **IN_SERVICE,
        facts.EventDelivered: Row(startup.start_acknowledged, State.REGISTERING_RUNNER),
        facts.EventRefused: Row(
            startup.refuse_start, State.DRAINING, State.SHUTTING_DOWN, State.ERROR
        ),
        facts.StartContinued: Row(
            startup.go_on,
            State.REGISTERING_RUNNER,
            State.DRAINING,
            State.SHUTTING_DOWN,
        ),
        facts.RunnerListening: Row(runner.become_idle, State.IDLE, State.JOB_RUNNING),
        facts.JobSeen: Row(runner.begin_job, State.JOB_RUNNING),
        **OPEN_JOB,
        facts.RunnerExited: Row(
            runner.runner_gone_meanwhile,
            *AFTER_RUNNER,
        ),
        facts.RunnerFailing: Row(
            runner.handle_failing_runner, State.REGISTERING_RUNNER, State.ERROR
        ),
        facts.RunnerRemoved: Row(
            runner.job_stopped, State.REGISTERING_RUNNER, State.SHUTTING_DOWN
        ),
    },
    State.REGISTERING_RUNNER: {
        **IN_SERVICE,
        facts.EventRefused: Row(startup.refuse_start, State.ERROR),
        facts.RunnerLaunched: Row(runner.note_launch),
        facts.RunnerListening: Row(runner.become_idle, State.IDLE),
        facts.JobSeen: Row(runner.begin_job, State.JOB_RUNNING),
        facts.RunnerExited: Row(runner.runner_gone, State.ERROR, State.SHUTTING_DOWN),
        facts.RunnerFailing: Row(runner.handle_failing_runner, State.ERROR),
        facts.RegistrationFailed: Row(runner.registration_failed, State.ERROR),
    },
    State.IDLE: {
        **IN_SERVICE,
        facts.EventRefused: Row(startup.refuse_start, State.ERROR),
        facts.RunnerListening: Row(runner.note_listening),
        facts.JobSeen: Row(runner.begin_job, State.JOB_RUNNING),
        facts.RunnerExited: Row(
            runner.runner_gone,
            *AFTER_RUNNER,
        ),
        facts.RunnerFailing: Row(
            runner.handle_failing_runner, State.REGISTERING_RUNNER, State.ERROR
        ),
        facts.TerminationNoticed: Row(shutdown.handle_notice, State.DRAINING),
    },
    State.JOB_RUNNING: {
        **IN_SERVICE,
        facts.EventRefused: Row(startup.refuse_start, State.DRAINING),
        facts.RunnerListening: Row(runner.note_listening),
        **OPEN_JOB,
        facts.RunnerExited: Row(
            runner.runner_gone_with_job,
            State.REGISTERING_RUNNER,
            State.SHUTTING_DOWN,
        ),
        facts.RunnerFailing: Row(runner.note_failing_runner),
        facts.RunnerRemoved: Row(
            runner.job_stopped, State.REGISTERING_RUNNER, State.SHUTTING_DOWN
        ),
        facts.TerminationNoticed: Row(shutdown.handle_notice, State.DRAINING),
    },
    State.DRAINING: {
        **ANYWHERE,
        facts.EventRefused: Row(startup.refuse_start),
        facts.RunnerListening: Row(runner.note_listening),
        facts.JobSeen: Row(runner.accept_late_job),
        facts.JobIdentified: Row(job.identify_job),
        facts.ListenerDied: Row(job.orphan_job),
        facts.JobEnded: Row(runner.end_job, State.SHUTTING_DOWN),
        facts.RunnerExited: Row(runner.runner_drained, State.SHUTTING_DOWN),
        facts.RunnerFailing: Row(runner.drain_failing_runner, State.SHUTTING_DOWN),
        facts.RunnerRemoved: Row(runner.job_stopped, State.SHUTTING_DOWN),
        facts.WorkerLost: Row(shutdown.worker_lost, State.ERROR),
        facts.CommandValidated: CommandsRow(State.SHUTTING_DOWN),
        facts.TerminationNoticed: Row(shutdown.handle_notice),
        facts.SignalReceived: Row(shutdown.handle_signal, State.SHUTTING_DOWN),
    },
    State.SHUTTING_DOWN: {
        **ANYWHERE,
        **STOPPING_RUNNER,
        facts.RunnerRemoved: Row(shutdown.runner_removed),
        facts.WorkerLost: Row(shutdown.worker_lost),
        facts.CommandValidated: CommandsRow(),
        facts.TerminationNoticed: Row(shutdown.handle_notice),
        facts.SignalReceived: Row(shutdown.handle_signal),
    },
    State.ERROR: {
        **ANYWHERE,
        **STOPPING_RUNNER,
        facts.EventDelivered: Row(shutdown.error_reported, State.SHUTTING_DOWN),
        facts.EventRefused: Row(shutdown.error_reported, State.SHUTTING_DOWN),
        facts.WorkerLost: Row(shutdown.worker_lost),
        facts.CommandValidated: CommandsRow(State.SHUTTING_DOWN),
        facts.TerminationNoticed: Row(shutdown.handle_notice),
        facts.SignalReceived: Row(shutdown.handle_signal, State.SHUTTING_DOWN),
    },
}

#: The rows of a machine that is shutting down and has only events left to deliver.
#: Nothing that is not in here changes anything: no event may follow VMStopped.
FLUSHING: dict[type[Fact], Row] = {
    facts.EventsFlushed: Row(shutdown.events_flushed),
    facts.TerminationNoticed: Row(shutdown.shorten_flush),
    facts.SignalReceived: Row(shutdown.exit_on_signal),
}

_FOR_ARBITER = "known to the arbiter alone: status, heartbeats and metrics tell of it"
_ONCE = "belongs to the start"
_NO_RUN = "no run is watched"
_NO_JOB = "no job is open: JobSeen comes first"
_JOB_KNOWN = "the job is known: a watcher that adopts its run says it again"
_WITHDRAWN = "the order that it answers was withdrawn"
_NO_ORDER = "nothing was ordered that it answers"
_NOT_FLUSHING = "only a machine that delivers its last events waits for it"

#: Facts that change nothing in any state of the table, each with the reason.
IGNORED_ANYWHERE: dict[type[Fact], str] = {
    facts.LivenessPing: "handled by the supervisor",
    facts.WorkerRecovered: _FOR_ARBITER,
    facts.RunKilled: "all that the run led to is reported",
    facts.EventsWritten: "comes when the machine has ended",
    facts.ControllerAnswered: _FOR_ARBITER,
    facts.ControllerFailed: _FOR_ARBITER,
    facts.ControllerTokenTaken: _FOR_ARBITER,
    facts.MachineSampled: _FOR_ARBITER,
    facts.EventsFlushed: _NOT_FLUSHING,
}

#: The facts of a start, in the states that follow it.
START_FACTS: dict[type[Fact], str] = {
    facts.SettingsLoaded: _ONCE,
    facts.SettingsRefused: _ONCE,
    facts.PreflightDone: _ONCE,
    facts.StartContinued: _ONCE,
}

#: In each state, the other facts that change nothing there, each with the reason.
IGNORED: dict[State, dict[type[Fact], str]] = {
    State.INITIALIZING: {
        facts.StartContinued: "posted only after the settings",
        facts.RunnerLaunched: _NO_RUN,
        facts.RunnerListening: _NO_RUN,
        facts.RunnerExited: _NO_RUN,
        facts.RunnerFailing: _NO_RUN,
        facts.RunnerRemoved: _NO_ORDER,
        facts.RegistrationFailed: _NO_ORDER,
        facts.JobSeen: _NO_RUN,
        facts.JobIdentified: _NO_RUN,
        facts.JobEnded: _NO_RUN,
        facts.ListenerDied: _NO_RUN,
    },
    State.WAITING_FOR_CONTROLLER: {
        facts.SettingsLoaded: _ONCE,
        facts.SettingsRefused: _ONCE,
        facts.PreflightDone: "the checks of this boot were passed",
        facts.RunnerLaunched: _NO_ORDER,
        facts.RegistrationFailed: _NO_ORDER,
    },
    State.REGISTERING_RUNNER: {
        **START_FACTS,
        facts.JobIdentified: _NO_JOB,
        facts.JobEnded: _NO_JOB,
        facts.ListenerDied: _NO_JOB,
        facts.RunnerRemoved: "answers the stop of a job that is closed",
    },
    State.IDLE: {
        **START_FACTS,
        facts.RunnerLaunched: "the run is known",
        facts.RegistrationFailed: _NO_ORDER,
        facts.JobIdentified: _NO_JOB,
        facts.JobEnded: _NO_JOB,
        facts.ListenerDied: _NO_JOB,
        facts.RunnerRemoved: _NO_ORDER,
    },
    State.JOB_RUNNING: {
        **START_FACTS,
        facts.RunnerLaunched: "the run is known",
        facts.RegistrationFailed: _NO_ORDER,
        facts.JobSeen: _JOB_KNOWN,
    },
    State.DRAINING: {
        **START_FACTS,
        facts.RunnerLaunched: "the run is known",
        facts.RegistrationFailed: _WITHDRAWN,
    },
    State.SHUTTING_DOWN: {
        **START_FACTS,
        facts.PreflightDone: "the end was decided before the checks were done",
        facts.EventRefused: "the machine ends already",
        facts.RunnerListening: "it is being stopped",
        facts.RegistrationFailed: _WITHDRAWN,
    },
    State.ERROR: {
        **START_FACTS,
        facts.PreflightDone: "the end was decided before the checks were done",
        facts.RunnerListening: "it will be stopped",
        facts.RegistrationFailed: _WITHDRAWN,
        facts.RunnerRemoved: "StopRunner follows",
    },
}


def leaves_to(state: State) -> frozenset[State]:
    """The states that the table leads to from `state`."""
    rows = frozenset().union(*(row.to for row in TABLE[state].values()))
    timers = (each.to for each in TIMERS.values() if state in each.states)
    return rows.union(*timers) - {state}


# Timers.


class Timer(NamedTuple):
    """A time limit that runs while `due` says when it is over; then the rule acts."""

    #: The states in which it may run.
    states: frozenset[State]
    #: Its monotonic time; None: it does not apply.
    due: Callable[[Vm], float | None]
    rule: Callable[[Vm, Moment], Step]
    #: The states that the rule may lead to besides staying.
    to: frozenset[State]


def _timer(
    states: tuple[State, ...],
    due: Callable[[Vm], float | None],
    rule: Callable[[Vm, Moment], Step],
    *to: State,
) -> Timer:
    return Timer(frozenset(states), due, rule, frozenset(to))


#: Seconds within which a job is announced even if nobody knows what it is.
ANNOUNCE_SECONDS = 2.0

#: Most seconds that the Error event may take before the shutdown goes on.
ERROR_SECONDS = 5.0

#: Seconds before the announced end of the machine at which delivery stops.
LAST_RESORT_SECONDS = 1.0


def _announce_due(vm: Vm) -> float | None:
    if vm.job is None or vm.job.announced:
        return None
    return vm.job.heard_now + ANNOUNCE_SECONDS


def _max_job_due(vm: Vm) -> float | None:
    limit = vm.policy.max_job_duration
    if vm.job is None or vm.stopped_by or not limit:
        return None
    return vm.job.seen_now + limit


def _orphan_due(vm: Vm) -> float | None:
    if vm.orphaned_since is None or vm.stopped_by:
        return None
    return vm.orphaned_since + vm.policy.orphan_timeout


def _stop_job_due(vm: Vm) -> float | None:
    if vm.job is None or vm.stopping_since is None:
        return None
    return vm.stopping_since + vm.policy.grace_period + shutdown.REMOVAL_SECONDS


def _idle_due(vm: Vm) -> float | None:
    limit = vm.policy.idle_timeout
    return vm.since_now + limit if limit else None


def _force_due(vm: Vm) -> float | None:
    if vm.forced_since is None:
        return None
    return vm.forced_since + vm.policy.force_after


def _error_due(vm: Vm) -> float:
    return vm.since_now + (0.0 if vm.failed_before else ERROR_SECONDS)


def _notice_due(vm: Vm) -> float | None:
    if vm.announced_end is None or (vm.job is None and vm.state is not State.DRAINING):
        return None
    return vm.announced_end - vm.policy.last_seconds


def _stop_due(vm: Vm) -> float | None:
    if vm.flushing:
        return None
    settle = vm.policy.drain_settle if vm.finished else 0.0
    limit = settle + vm.policy.grace_period + shutdown.REMOVAL_SECONDS
    return _before_end(vm, vm.since_now + limit, DELIVERY_SECONDS - KILL_SECONDS)


def _flush_due(vm: Vm) -> float | None:
    if vm.flushing_since is None:
        return None
    # Where the service manager starts MIGlet again, the next start delivers the rest.
    final = vm.end is None or vm.end.final
    limit = vm.policy.delivery_timeout if final else vm.policy.grace_period
    due = vm.flushing_since + limit
    return _before_end(vm, due, LAST_RESORT_SECONDS)


def _before_end(vm: Vm, due: float, seconds: float) -> float:
    """`due`, or so many seconds before the announced end of the machine."""
    return due if vm.announced_end is None else min(due, vm.announced_end - seconds)


def _give_up_due(vm: Vm) -> float | None:
    limit = vm.policy.give_up_after
    if vm.acknowledged or vm.runner or not limit:
        return None
    return vm.since_now + limit


def _unattended_due(vm: Vm) -> float | None:
    """The controller is away, and a registration token lies in the metadata."""
    if vm.acknowledged or vm.runner or not vm.policy.token_in_metadata:
        return None
    return vm.since_now + startup.UNATTENDED_SECONDS


def _announce(vm: Vm, moment: Moment) -> Step:
    """No source has identified the job: announce it all the same."""
    return job.announce_job(vm)


#: The states in which a job may be open: those before the shutdown, and all of them.
_BEFORE_SHUTDOWN = (State.WAITING_FOR_CONTROLLER, State.JOB_RUNNING, State.DRAINING)
_WITH_JOB = (*_BEFORE_SHUTDOWN, State.SHUTTING_DOWN, State.ERROR)

#: Every time limit by its name. A timer runs exactly while its state and its `due`
#: say so; `step` starts and stops it.
TIMERS: dict[str, Timer] = {
    "announce": _timer(_WITH_JOB, _announce_due, _announce),
    "max_job": _timer(_BEFORE_SHUTDOWN, _max_job_due, shutdown.job_too_long),
    "orphan": _timer(_BEFORE_SHUTDOWN, _orphan_due, shutdown.orphan_too_long),
    "stop_job": _timer(
        _BEFORE_SHUTDOWN, _stop_job_due, shutdown.job_cannot_be_stopped, State.ERROR
    ),
    "idle": _timer((State.IDLE,), _idle_due, shutdown.idle_too_long, State.DRAINING),
    "force": _timer((State.DRAINING,), _force_due, shutdown.force, State.SHUTTING_DOWN),
    "notice": _timer(
        _BEFORE_SHUTDOWN, _notice_due, shutdown.notice_is_due, State.SHUTTING_DOWN
    ),
    "error": _timer(
        (State.ERROR,), _error_due, shutdown.error_not_reported, State.SHUTTING_DOWN
    ),
    "stop": _timer((State.SHUTTING_DOWN,), _stop_due, shutdown.stop_took_too_long),
    "flush": _timer((State.SHUTTING_DOWN,), _flush_due, shutdown.give_up_delivery),
    "give_up": _timer(
        (State.WAITING_FOR_CONTROLLER,), _give_up_due, startup.give_up, State.ERROR
    ),
    "unattended": _timer(
        (State.WAITING_FOR_CONTROLLER,),
        _unattended_due,
        runner.provide_runner,
        State.REGISTERING_RUNNER,
    ),
}


def due_times(vm: Vm) -> dict[str, float]:
    """When each timer that runs is due (monotonic)."""
    dues = {
        name: timer.due(vm)
        for name, timer in TIMERS.items()
        if vm.state in timer.states
    }
    return {name: due for name, due in dues.items() if due is not None}


def timer_changes(before: Vm, after: Vm, moment: Moment) -> list[Effect]:
    """The timers to start, to move and to stop."""
    if before is after:
        return []
    running, wanted = due_times(before), due_times(after)
    stops: list[Effect] = [StopTimer(name) for name in running if name not in wanted]
    starts = [
        SetTimer(name, max(0.0, due - moment.now))
        for name, due in wanted.items()
        if running.get(name) != due
    ]
    return [*stops, *starts]


def change_policy(vm: Vm, policy: Policy, moment: Moment) -> Step:
    """Changed settings hold at once, for the timers that run as well."""
    after = vm.replace(policy=policy)
    return after, timer_changes(vm, after, moment)


# The one function that decides.


def step(vm: Vm, fact: Fact, moment: Moment) -> Step:
    """What `fact` makes of the machine, and the effects to perform."""
    if isinstance(fact, facts.DeadlinePassed):
        after, effects = _time_out(vm, fact, moment)
    else:
        # The rows of a start come first, even where the machine was flushing before.
        flushing = vm.flushing and vm.state is not State.INITIALIZING
        row = (FLUSHING if flushing else TABLE[vm.state]).get(type(fact))
        if row is None or _is_stale(vm, fact):
            return vm, []
        after, effects = row.apply(vm, fact, moment)
    if any(isinstance(each, Exit) for each in effects):
        return after, effects
    return after, [*effects, *timer_changes(vm, after, moment)]


def _time_out(vm: Vm, fact: facts.DeadlinePassed, moment: Moment) -> Step:
    """A timer ran out, unless it lost its meaning in the same moment."""
    if fact.name not in due_times(vm):
        return vm, []
    timer = TIMERS[fact.name]
    after, effects = timer.rule(vm, moment)
    _require_declared(vm, after, timer.to, fact)
    return after, effects


def _is_stale(vm: Vm, fact: Fact) -> bool:
    """Whether the fact is about another run than the present one."""
    if isinstance(fact, facts.RunnerListening):
        run = fact.runner["run_id"]
    else:
        run = getattr(fact, "run_id", None)
    present = vm.runner["run_id"] if vm.runner else None
    return run is not None and run != present
