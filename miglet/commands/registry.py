"""What the machine can be told to do: one decorated pure function a command.

A command is obeyed or refused at once, and answered by one CommandCompleted. Its
parameters were held against its JSON Schema before they come here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from miglet.errors import MigletError
from miglet.lifecycle.common import Step, drained, stop_now
from miglet.lifecycle.effects import Adopt, ChangeLevel, Effect, Emit, Tell
from miglet.lifecycle.vm import End, Moment, State, Vm
from miglet.logger import level_named
from miglet.messages.events import CommandCompleted
from miglet.messages.facts import CommandExamined
from miglet.messages.orders import RenewCredentials


class CommandRefused(MigletError):
    """The command makes no sense now; the message is the reason."""

    category = "user"


class Command(NamedTuple):
    """A command as the function below obeys it."""

    name: str
    #: Whether it is answered by a later fact, when it is known what came of it.
    later: bool
    obey: Callable[[Vm, CommandExamined, Moment], Step]


log = logging.getLogger(__name__)

#: Every command by its canonical name: lower case, no underscores.
COMMANDS: dict[str, Command] = {}


def canonical(name: str) -> str:
    """`set_log_level`, `SetLogLevel` and `SETLOGLEVEL` are one command."""
    return name.replace("_", "").lower()


def command(
    name: str, later: bool = False
) -> Callable[[Callable[[Vm, CommandExamined, Moment], Step]], Any]:
    """Register a function as the command `name` (its wire name)."""

    def register(obey: Callable[[Vm, CommandExamined, Moment], Step]) -> Any:
        COMMANDS[canonical(name)] = Command(name, later, obey)
        return obey

    return register


def obey(vm: Vm, fact: CommandExamined, moment: Moment) -> Step:
    """Obey or refuse, and say which."""
    try:
        vm, effects = _obeyed(vm, fact, moment)
    except CommandRefused as refusal:
        log.warning("%s by %s: %s", fact.type, fact.requested_by, refusal)
        return vm, _answer(fact, "rejected", str(refusal))
    if COMMANDS[canonical(fact.type)].later:
        return vm, effects
    return vm, [*effects, *_answer(fact, "done", None)]


def _obeyed(vm: Vm, fact: CommandExamined, moment: Moment) -> Step:
    if fact.faults:
        raise CommandRefused("; ".join(fact.faults))
    return COMMANDS[canonical(fact.type)].obey(vm, fact, moment)


def _answer(fact: CommandExamined, outcome: str, reason: str | None) -> list[Effect]:
    """Only commands of the controller have an id and are answered by an event."""
    if not fact.id:
        return []
    known = COMMANDS.get(canonical(fact.type))
    name = known.name if known else fact.type
    return [Emit(CommandCompleted(fact.id, name, outcome, reason))]


@command("Drain")
def drain(vm: Vm, fact: CommandExamined, moment: Moment) -> Step:
    """Take no new job, let the present one finish, then shut down."""
    reason = fact.parameters.get("reason") or "drain"
    return drained(vm, End(reason, fact.requested_by), moment)


@command("Shutdown")
def shutdown(vm: Vm, fact: CommandExamined, moment: Moment) -> Step:
    """Shut down: after the present job, or at once."""
    end = End(fact.parameters.get("reason") or "shutdown", fact.requested_by)
    if fact.parameters.get("mode", "after_job") == "immediate":
        return stop_now(vm, end, moment)
    return drained(vm, end, moment)


@command("UpdateConfig")
def update_config(vm: Vm, fact: CommandExamined, moment: Moment) -> Step:
    """Go on with changed settings; they were validated as a whole."""
    if vm.state in (State.SHUTTING_DOWN, State.ERROR):
        raise CommandRefused("the machine is shutting down")
    if fact.settings is None:
        raise CommandRefused("no settings came out of the examination")
    return vm, [Adopt(fact.settings, fact.origins)]


@command("SetLogLevel")
def set_log_level(vm: Vm, fact: CommandExamined, moment: Moment) -> Step:
    """Log from another level on, until the next start or change of logging.level."""
    return vm, [ChangeLevel(level_named(fact.parameters["level"]))]


@command("RotateCredentials", later=True)
def rotate_credentials(vm: Vm, fact: CommandExamined, moment: Moment) -> Step:
    """Read the controller's credential anew, and prove it before the old one goes."""
    return vm, [Tell(RenewCredentials(fact.id))]
