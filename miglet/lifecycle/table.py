"""The lifecycle as one table: in each state, the facts that matter, their rules, and
where these may lead. Docs and tests read it; a fact without a row changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from miglet.errors import MigletError
from miglet.lifecycle import job, runner, shutdown, startup
from miglet.lifecycle.common import Step
from miglet.lifecycle.vm import Moment, State, Vm
from miglet.messages import facts
from miglet.messages.codec import Fact

log = logging.getLogger(__name__)


class ImpossibleTransition(MigletError):
    """A rule led to a state that its row does not name: a mistake in the table."""


class Row:
    """One row: a rule, and the states that it may lead to besides staying."""

    def __init__(self, rule: Callable[[Vm, Any, Moment], Step], *to: State) -> None:
        self.rule = rule
        self.to = frozenset(to)

    def apply(self, vm: Vm, fact: Fact, moment: Moment) -> Step:
        """What the rule makes of the machine; ImpossibleTransition if it errs."""
        after, effects = self.rule(vm, fact, moment)
        if after.state is not vm.state and after.state not in self.to:
            raise ImpossibleTransition(f"{vm.state} -> {after.state} on {fact!r}")
        return after, effects


#: Facts that have the same row in every state.
ANYWHERE = {
    facts.TokenSpent: Row(runner.note_token),
    facts.FaultNoted: Row(runner.note_fault),
    facts.WorkerLost: Row(shutdown.worker_lost),
    facts.CredentialsRenewed: Row(shutdown.credentials_renewed),
    facts.JobSampled: Row(job.note_usage),
    facts.EventDelivered: Row(startup.note_delivery),
    facts.EventSetAside: Row(shutdown.event_set_aside),
}

#: In each state, the facts that matter there and what they lead to.
TABLE: dict[State, dict[type[Fact], Row]] = {
    State.INITIALIZING: {
        **ANYWHERE,
        facts.SettingsLoaded: Row(startup.resume, State.WAITING_FOR_CONTROLLER),
        facts.SettingsRefused: Row(startup.refuse_settings, State.ERROR),
        facts.PreflightDone: Row(
            startup.announce, State.WAITING_FOR_CONTROLLER, State.ERROR
        ),
        facts.TerminationNoticed: Row(shutdown.heed_notice, State.SHUTTING_DOWN),
        facts.SignalReceived: Row(shutdown.heed_signal, State.SHUTTING_DOWN),
    },
    State.WAITING_FOR_CONTROLLER: {
        **ANYWHERE,
        facts.EventDelivered: Row(startup.heed_delivery, State.REGISTERING_RUNNER),
        facts.StartAcknowledged: Row(
            startup.go_on, State.REGISTERING_RUNNER, State.SHUTTING_DOWN
        ),
        facts.EventRefused: Row(startup.heed_refusal, State.ERROR),
        facts.RunnerListening: Row(
            runner.become_idle,
            State.IDLE,
            State.JOB_RUNNING,
            State.DRAINING,
            State.SHUTTING_DOWN,
        ),
        facts.RunnerExited: Row(
            runner.runner_gone_meanwhile,
            State.REGISTERING_RUNNER,
            State.SHUTTING_DOWN,
            State.ERROR,
        ),
        facts.TerminationNoticed: Row(
            shutdown.heed_notice, State.DRAINING, State.SHUTTING_DOWN
        ),
        facts.SignalReceived: Row(
            shutdown.heed_signal, State.DRAINING, State.SHUTTING_DOWN
        ),
        facts.DeadlinePassed: Row(shutdown.heed_deadline, State.ERROR),
    },
    State.REGISTERING_RUNNER: {
        **ANYWHERE,
        facts.WorkerLost: Row(shutdown.worker_lost, State.ERROR),
        facts.RunnerLaunched: Row(runner.note_launch),
        facts.RunnerListening: Row(
            runner.become_idle, State.IDLE, State.DRAINING, State.SHUTTING_DOWN
        ),
        facts.RunnerExited: Row(runner.runner_gone, State.ERROR, State.SHUTTING_DOWN),
        facts.RegistrationFailed: Row(runner.registration_failed, State.ERROR),
        facts.TerminationNoticed: Row(
            shutdown.heed_notice, State.DRAINING, State.SHUTTING_DOWN
        ),
        facts.SignalReceived: Row(
            shutdown.heed_signal, State.DRAINING, State.SHUTTING_DOWN
        ),
        facts.DeadlinePassed: Row(shutdown.heed_deadline),
    },
    State.IDLE: {
        **ANYWHERE,
        facts.JobSeen: Row(job.begin_job, State.JOB_RUNNING),
        facts.RunnerExited: Row(
            runner.runner_gone,
            State.REGISTERING_RUNNER,
            State.SHUTTING_DOWN,
            State.ERROR,
        ),
        facts.RunnerTroubled: Row(
            runner.runner_troubled, State.REGISTERING_RUNNER, State.ERROR
        ),
        facts.TerminationNoticed: Row(shutdown.heed_notice, State.DRAINING),
        facts.SignalReceived: Row(
            shutdown.heed_signal, State.DRAINING, State.SHUTTING_DOWN
        ),
        facts.DeadlinePassed: Row(shutdown.heed_deadline, State.DRAINING),
    },
    State.JOB_RUNNING: {
        **ANYWHERE,
        facts.JobIdentified: Row(job.identify_job),
        facts.JobResultSeen: Row(
            job.end_job, State.REGISTERING_RUNNER, State.SHUTTING_DOWN
        ),
        facts.RunnerExited: Row(
            job.end_job_with_runner,
            State.REGISTERING_RUNNER,
            State.SHUTTING_DOWN,
        ),
        facts.TerminationNoticed: Row(shutdown.heed_notice, State.DRAINING),
        facts.SignalReceived: Row(
            shutdown.heed_signal, State.DRAINING, State.SHUTTING_DOWN
        ),
        facts.DeadlinePassed: Row(shutdown.heed_deadline),
    },
    State.DRAINING: {
        **ANYWHERE,
        facts.JobSeen: Row(job.slip_in),
        facts.JobIdentified: Row(job.identify_job),
        facts.JobResultSeen: Row(job.end_job, State.SHUTTING_DOWN),
        facts.RunnerExited: Row(job.finish_drain, State.SHUTTING_DOWN),
        facts.RunnerTroubled: Row(runner.drain_troubled, State.SHUTTING_DOWN),
        facts.TerminationNoticed: Row(shutdown.heed_notice),
        facts.SignalReceived: Row(shutdown.heed_signal, State.SHUTTING_DOWN),
        facts.DeadlinePassed: Row(shutdown.heed_deadline, State.SHUTTING_DOWN),
    },
    State.SHUTTING_DOWN: {
        **ANYWHERE,
        facts.JobIdentified: Row(job.identify_job),
        facts.JobResultSeen: Row(job.complete_late),
        facts.RunnerExited: Row(job.complete_late),
        facts.RunnerRemoved: Row(shutdown.runner_removed),
        facts.EventsFlushed: Row(shutdown.all_told),
        facts.TerminationNoticed: Row(shutdown.heed_notice),
        facts.SignalReceived: Row(shutdown.heed_signal),
        facts.DeadlinePassed: Row(shutdown.heed_deadline),
    },
    State.ERROR: {
        **ANYWHERE,
        facts.JobResultSeen: Row(job.complete_late),
        facts.RunnerExited: Row(job.complete_late),
        facts.EventDelivered: Row(shutdown.go_down, State.SHUTTING_DOWN),
        facts.EventRefused: Row(shutdown.go_down, State.SHUTTING_DOWN),
        facts.TerminationNoticed: Row(shutdown.heed_notice),
        facts.SignalReceived: Row(shutdown.heed_signal, State.SHUTTING_DOWN),
        facts.DeadlinePassed: Row(shutdown.heed_deadline, State.SHUTTING_DOWN),
    },
}


#: Facts that no state ought to be told in vain; the others are for somebody else too.
TOLD = (
    facts.RunnerListening,
    facts.RunnerExited,
    facts.JobSeen,
    facts.JobResultSeen,
    facts.RunnerRemoved,
    facts.RegistrationFailed,
)


def leaves_to(state: State) -> frozenset[State]:
    """The states that the table leads to from `state`."""
    return frozenset().union(*(row.to for row in TABLE[state].values()))


def step(vm: Vm, fact: Fact, moment: Moment) -> Step:
    """What `fact` makes of the machine, and the effects to perform."""
    row = TABLE[vm.state].get(type(fact))
    if row is None or _is_stale(vm, fact):
        if isinstance(fact, TOLD):
            log.debug("nothing to do in %s on %r", vm.state.value, fact)
        return vm, []
    return row.apply(vm, fact, moment)


def _is_stale(vm: Vm, fact: Fact) -> bool:
    """Whether the fact speaks of another run than the present one."""
    if isinstance(fact, facts.RunnerListening):
        run = fact.runner["run_id"]
    else:
        run = getattr(fact, "run_id", None)
    present = vm.runner["run_id"] if vm.runner else None
    return run is not None and run != present
