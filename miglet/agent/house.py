"""What the arbiter has at hand: everything that a fact may change or an effect touch.

One value of each kind, made before the loop begins and used only by it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import selectors
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from miglet.agent.delivery import Uplink
from miglet.agent.herald import Herald, present
from miglet.agent.status import Knowledge
from miglet.agent.timers import Timers
from miglet.journal.journal import Journal
from miglet.lifecycle.effects import AcceptCommand, Effect, Emit
from miglet.lifecycle.vm import Moment, Vm
from miglet.messages.codec import Fact
from miglet.messages.events import CommandCompleted, Error, Event, VMStopped, seal
from miglet.supervisor.children import ChildTasks
from miglet.supervisor.queues import Queue
from miglet.supervisor.supervisor import Supervisor
from miglet.supervisor.systemd import Notifier
from miglet.workers.registry import facts_of, worker_called

log = logging.getLogger(__name__)


@dataclass
class House:
    """The machine's state, the journal, and those who carry out what is decided."""

    vm: Vm
    known: Knowledge
    journal: Journal
    notifier: Notifier
    inbox: deque[Fact] = field(default_factory=deque)
    timers: Timers = field(default_factory=Timers)
    #: Set by the effect that ends the program.
    exit_status: int | None = None

    def __post_init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.supervisor = Supervisor(self.selector, self.inbox)
        self.tasks = ChildTasks(self.selector, self.inbox)
        self.uplink = Uplink(self.journal, self.supervisor)
        self.herald = Herald(self.known, self.journal, self.supervisor, self.notifier)

    def hire(self, name: str) -> None:
        """Have this worker, from now on."""
        main = functools.partial(self._work, name)
        self.supervisor.hire(name, main, facts_of(name))

    def _work(self, name: str, queue: Queue) -> None:
        """In the child: live the worker's life with the settings of this moment."""
        worker_called(name)(self.known.settings, self.known.identity)(queue)

    def emit(self, event: Event) -> None:
        """Put an event into the journal that no rule has led to.

        Nothing may follow VMStopped: by then it is only logged.
        """
        if self.vm.flushing:
            log.warning("not reported after the machine's last event: %s", event)
            return
        self.record(self.vm, [Emit(event)], present())

    def record(self, after: Vm, wanted: list[Effect], moment: Moment) -> None:
        """One transaction: the new state, its events, and answers to commands."""
        emitted = [each for each in wanted if isinstance(each, Emit)]
        accepted = [each.command for each in wanted if isinstance(each, AcceptCommand)]
        if not emitted and not after.differs_from(self.vm):
            return
        state, identity = after.state.value, self.known.identity
        events = [
            seal(self._completed(each.event), identity, each.job, state, moment.at)
            for each in emitted
        ]
        answers = [
            each.event for each in emitted if isinstance(each.event, CommandCompleted)
        ]
        commands: dict[str, dict[str, Any]] = {
            each.id: {"command_id": each.id, "command_type": each.type}
            for each in accepted
        }
        commands |= {each.command_id: dataclasses.asdict(each) for each in answers}
        self.journal.record(after.to_json(), events, commands)
        for each in emitted:
            self._note_error(each.event)

    def _completed(self, event: Event) -> Event:
        """The event with what only the journal knows."""
        if isinstance(event, VMStopped):
            dropped = self.journal.counts().dropped
            return dataclasses.replace(event, events_dropped=dropped)
        return event

    def _note_error(self, event: Event) -> None:
        if isinstance(event, Error):
            self.known.last_error = f"{event.code}: {event.message}"
            log.error("%s: %s; %s", event.code, event.message, event.hint)
