"""Facts that these histories begin with or go on by."""

from __future__ import annotations

import json

from miglet.lifecycle.vm import Moment, Policy, Vm
from miglet.messages.facts import (
    CommandValidated,
    DeadlinePassed,
    EventDelivered,
    EventsFlushed,
    RegistrationFailed,
    RunnerFailing,
    RunnerRemoved,
    SettingsLoaded,
    SignalReceived,
    StartContinued,
    TerminationNoticed,
)
from tests.histories import (
    ACKNOWLEDGED,
    AT,
    IDENTIFIED,
    LAUNCHED,
    LISTENING,
    PREPARED,
    RUN,
    SEEN,
    evidence,
    finished,
    gone,
)

TERM = SignalReceived("SIGTERM")


REMOVED = RunnerRemoved("removed", "removed")


PREEMPTED = TerminationNoticed("preempted", AT + 30.0, "gce")


LOADED = SettingsLoaded({}, [])


def reborn(vm: Vm) -> Vm:
    """The machine as a new MIGlet finds it in the journal."""
    return Vm.restore(json.loads(json.dumps(vm.to_json())), Policy(), Moment(AT, 50.0))


HISTORY = [
    PREPARED,
    ACKNOWLEDGED,
    LAUNCHED,
    LISTENING,
    SEEN,
    IDENTIFIED,
    finished(),
    finished("failed", "failure", 102),
    gone(),
    gone(evidence(None, None), None, 9),
    gone(evidence("Failed", 137)),
    RunnerFailing(RUN, "ghost", "x"),
    TERM,
    REMOVED,
    EventsFlushed(),
    EventDelivered(3, "Error"),
    CommandValidated("c", "Drain", {}),
    CommandValidated("c", "Shutdown", {"mode": "immediate"}),
    LOADED,
    PREEMPTED,
    DeadlinePassed("notice"),
    StartContinued(),
    RegistrationFailed("permanent", "refused", "no", "", 77),
    *(DeadlinePassed(name) for name in ("announce", "max_job", "idle", "force")),
    *(DeadlinePassed(name) for name in ("error", "stop", "flush")),
]
