"""What the child that validates says of a command."""

from __future__ import annotations

from miglet.commands.validation import validate_command
from miglet.messages.facts import CommandValidated
from miglet.supervisor import queues


def validated(command: dict, faults: list[str], current: dict) -> CommandValidated:
    ours, theirs = queues.pair()
    validate_command(theirs, command, faults, current)
    (fact,) = list(ours.receive())
    ours.close()
    theirs.close()
    return fact
