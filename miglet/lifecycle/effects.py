"""What the arbiter does because of a fact: the only way from a rule to the world."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from miglet.messages.codec import Fact, Order, Value, frozen_value
from miglet.messages.events import Event, JobReference
from miglet.messages.facts import CommandReceived


class Effect(Value):
    """Something that the arbiter performs after a rule has decided."""


@frozen_value
class Emit(Effect):
    """Put this event into the journal, in one transaction with the new state."""

    event: Event
    job: JobReference | None = None


@frozen_value
class GiveOrder(Effect):
    """Give this order to its worker."""

    order: Order


@frozen_value
class SetTimer(Effect):
    """Report DeadlinePassed(name) in so many seconds, once.

    Replaces a timer of the same name.
    """

    name: str
    seconds: float


@frozen_value
class StopTimer(Effect):
    """Forget this timer."""

    name: str


@frozen_value
class Post(Effect):
    """Handle this fact next."""

    fact: Fact


@frozen_value
class AcceptCommand(Effect):
    """Persist the command as accepted, and have it validated in a child task."""

    command: CommandReceived


@frozen_value
class ChangeSettings(Effect):
    """Go on with these validated settings, in the arbiter and in every worker."""

    settings: dict[str, Any] = field(repr=False)
    origins: list[dict[str, Any]] | None = field(default=None, repr=False)


@frozen_value
class ChangeLevel(Effect):
    """Log from this level on, everywhere."""

    level: str


@frozen_value
class KillRun(Effect):
    """Kill all processes of this run in a child task: no runner-watcher does it."""

    run_id: str


@frozen_value
class StopWorkers(Effect):
    """Stop every worker but the heartbeat-sender."""


@frozen_value
class Exit(Effect):
    """End the program."""

    status: int
