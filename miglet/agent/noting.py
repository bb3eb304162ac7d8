"""What the arbiter notes of a fact before and after the lifecycle decides.

One function a fact; most facts are the lifecycle's alone and have none here. An event
leaves the journal only when what its delivery leads to is in there.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from miglet.agent.house import House
from miglet.formats import one_line
from miglet.journal.failover import JournalFinding
from miglet.messages import facts
from miglet.messages.codec import Fact
from miglet.messages.events import CommandCompleted, Error
from miglet.messages.orders import FollowJob
from miglet.workers.registry import IN_A_CLOUD, UPLINK

log = logging.getLogger(__name__)


def welcome(house: House, fact: facts.WorkerStarted) -> None:
    """A new worker hears what its predecessor knew."""
    if fact.worker == UPLINK:
        house.uplink.renew(fact.pid)
    reference = house.vm.job.reference if house.vm.job else ()
    house.supervisor.tell(fact.worker, FollowJob(*reference))
    house.herald.beat(house.vm)


def note_sample(house: House, fact: facts.MachineSampled) -> None:
    """The latest sample goes into the heartbeats."""
    house.known.vm_health = fact.vm_health
    house.herald.beat(house.vm)


def note_machine(house: House, fact: facts.PreflightDone) -> None:
    """Say on stderr what is wrong; in a cloud there is one more thing to watch."""
    for row in fact.report:
        if row["status"] == "fail":
            hint = f"; {row['hint']}" if row["hint"] else ""
            line = f"miglet: {row['id']}: {row['detail']}{hint}"
            sys.stderr.write(one_line(line) + "\n")
    if fact.machine.get("cloud"):
        house.hire(IN_A_CLOUD)


def note_answer(house: House, fact: facts.ControllerAnswered) -> None:
    """The controller is there."""
    house.known.heard(fact, time.monotonic())


def note_failure(house: House, fact: facts.ControllerFailed) -> None:
    """The controller is not there, or not as it should be."""
    house.known.missed(fact)


def note_token(house: House, fact: facts.ControllerTokenTaken) -> None:
    """A heartbeat at once shows whether the controller takes it; events follow."""
    house.herald.beat(house.vm, at_once=True)


def note_delivery(house: House, fact: facts.EventDelivered) -> None:
    """The event has left the journal."""
    house.uplink.delivered(fact)


def note_refusal(house: House, fact: facts.EventRefused) -> None:
    """The event is set aside."""
    house.uplink.refused(fact)


def note_set_aside(house: House, fact: facts.EventSetAside) -> None:
    """The event waits for the end; the next one gets its turn."""
    house.uplink.set_aside(fact)


def is_repeated(house: House, fact: Fact) -> bool:
    """Whether this is a command that was accepted before, in whatever boot."""
    if not isinstance(fact, facts.CommandReceived) or not fact.id:
        return False
    known = house.journal.command(fact.id) is not None
    if known:
        log.info("command %s is known already", fact.id)
    return known


def close_open_commands(house: House) -> None:
    """Answer commands that a boot before this one accepted and did not answer."""
    for identity, accepted in house.journal.open_commands().items():
        if identity in house.vm.commands:
            continue
        kind, reason = accepted["command_type"], "MIGlet ended before it was obeyed"
        house.emit(CommandCompleted(identity, kind, "failed", reason))


def report_findings(house: House) -> None:
    """What the journal found out about itself becomes an event."""
    for found in house.journal.take_findings():
        house.emit(error_of(found))


def error_of(found: JournalFinding) -> Error:
    """The event that tells of a finding."""
    counts = ", ".join(f"{name}: {number}" for name, number in found.counts.items())
    message = f"{found.message} ({counts})" if counts else found.message
    return Error("infrastructure", found.code, message, "journal")


#: What is noted of each fact.
NOTES: dict[type[Fact], Callable[[House, Any], None]] = {
    facts.WorkerStarted: welcome,
    facts.MachineSampled: note_sample,
    facts.PreflightDone: note_machine,
    facts.ControllerAnswered: note_answer,
    facts.ControllerFailed: note_failure,
    facts.ControllerTokenTaken: note_token,
}

#: What is noted of each fact once its consequences are on disk.
AFTERWARDS: dict[type[Fact], Callable[[House, Any], None]] = {
    facts.EventDelivered: note_delivery,
    facts.EventRefused: note_refusal,
    facts.EventSetAside: note_set_aside,
}
