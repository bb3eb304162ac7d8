"""The commands: one decorated pure function each.

Each is a row of the lifecycle's table. A command is obeyed or rejected at once, and
answered by one CommandCompleted; its parameters were held against its JSON Schema.
"""

from __future__ import annotations

from miglet.lifecycle.effects import ChangeLevel, ChangeSettings, GiveOrder
from miglet.lifecycle.job import Step
from miglet.lifecycle.shutdown import drain, stop_now
from miglet.lifecycle.table import CommandRejected, command
from miglet.lifecycle.vm import End, Moment, State, Vm
from miglet.logger import level_named
from miglet.messages.facts import CommandValidated
from miglet.messages.orders import RenewCredentials


def requester(fact: CommandValidated) -> str:
    """The wire value of `requested_by`."""
    return fact.requested_by.split(" ", 1)[0]


@command("Drain", State.DRAINING, State.SHUTTING_DOWN)
def drain_machine(vm: Vm, fact: CommandValidated, moment: Moment) -> Step:
    """Take no new job, let the present one finish, then shut down."""
    detail = fact.parameters.get("reason")
    return drain(vm, End("drained", requester(fact), detail=detail), moment)


@command("Shutdown", State.DRAINING, State.SHUTTING_DOWN)
def shut_machine_down(vm: Vm, fact: CommandValidated, moment: Moment) -> Step:
    """Shut down: after the present job, or at once."""
    end = End("command", requester(fact), detail=fact.parameters.get("reason"))
    if fact.parameters.get("mode", "after_job") == "immediate":
        return stop_now(vm, end, moment)
    return drain(vm, end, moment)


@command("UpdateConfig")
def update_config(vm: Vm, fact: CommandValidated, moment: Moment) -> Step:
    """Go on with changed settings; they were validated as a whole."""
    if vm.state in (State.SHUTTING_DOWN, State.ERROR):
        raise CommandRejected("the machine is shutting down")
    if fact.settings is None:
        raise CommandRejected("the validation gave no settings")
    return vm, [ChangeSettings(fact.settings, fact.origins)]


@command("SetLogLevel")
def set_log_level(vm: Vm, fact: CommandValidated, moment: Moment) -> Step:
    """Log from another level on, until the next start or change of logging.level."""
    return vm, [ChangeLevel(level_named(fact.parameters["level"]))]


@command("RotateCredentials", answered_later=True)
def rotate_credentials(vm: Vm, fact: CommandValidated, moment: Moment) -> Step:
    """Read the controller's credential anew, and prove it before the old one goes."""
    return vm, [GiveOrder(RenewCredentials(fact.id))]
