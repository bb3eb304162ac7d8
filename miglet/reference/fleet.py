"""What the calls of agents and of operators share: one database and its attendants."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any

from miglet.reference.bells import Bells
from miglet.reference.command_queue import CommandQueue
from miglet.reference.pulses import Pulses, health
from miglet.reference.store import Store
from miglet.reference.tokens import TokenFile
from miglet.reference.views import Views


@dataclass(frozen=True)
class TokenSource:
    """Where runners' tokens come from: files, handed out one line after the other."""

    runner_url: str | None = None
    registration: TokenFile | None = None
    removal: TokenFile | None = None


@dataclass(frozen=True)
class Controller:
    """The controller's parts; each says itself what it is for."""

    store: Store
    views: Views
    commands: CommandQueue
    pulses: Pulses
    tokens: TokenSource
    bells: Bells = field(default_factory=Bells)

    def meet(self, vm_id: str) -> None:
        """A machine has called."""
        if not self.views.knows(vm_id):
            self.store.meet(vm_id, time.time())
        self.pulses.met(vm_id, time.monotonic())

    def machine(self, vm_id: str) -> dict[str, Any] | None:
        """A machine with its health as it is now; None: it never called."""
        machine = self.views.machine(vm_id)
        if machine is None:
            return None
        missed = self.pulses.missed(vm_id, time.monotonic())
        ended = self.views.has_ended(vm_id)
        return {**machine, "health": health(missed, ended), "missed_heartbeats": missed}


def controller_on(
    db: sqlite3.Connection,
    tokens: TokenSource,
    heartbeat_interval_seconds: float,
    lease_seconds: float,
) -> Controller:
    """A controller that keeps everything in `db`."""
    return Controller(
        store=Store(db),
        views=Views(db),
        commands=CommandQueue(db, lease_seconds),
        pulses=Pulses(heartbeat_interval_seconds, time.monotonic()),
        tokens=tokens,
    )


def event_topic(vm_id: str) -> str:
    """The bell that rings when an event of the machine was stored."""
    return f"events of {vm_id}"


def command_topic(vm_id: str) -> str:
    """The bell that rings when a command for the machine was queued."""
    return f"commands for {vm_id}"
