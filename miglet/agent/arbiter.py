"""The arbiter: the one loop that owns the state, the journal and the decisions.

It takes one fact at a time, lets the lifecycle decide, writes the new state and its
events in one transaction, and only then acts. It never waits for anybody.
"""

from __future__ import annotations

import functools
import gc
import logging
import selectors
import time
from collections.abc import Callable, Iterable
from typing import Any

from miglet.agent.filewatch import FileWatch
from miglet.agent.herald import present
from miglet.agent.house import House
from miglet.agent.noting import (
    AFTERWARDS,
    NOTES,
    close_open_commands,
    is_repeated,
    report_findings,
)
from miglet.agent.performing import PERFORM
from miglet.commands import registry  # noqa: F401 - its commands become rows
from miglet.commands.intake import RELOAD, reload_task, with_settings_checked
from miglet.control.server import ControlServer
from miglet.lifecycle.effects import Effect
from miglet.lifecycle.table import step
from miglet.lifecycle.vm import Moment, Vm
from miglet.messages import facts
from miglet.messages.codec import Fact, learn_types
from miglet.supervisor.failpoints import reach
from miglet.supervisor.linux import RunQueue
from miglet.supervisor.signals import PARENT, SignalPipe
from miglet.supervisor.tidying import Tidying, give_back_memory
from miglet.workers.registry import CRITICAL

#: Most seconds that the loop sleeps: the supervisor looks after its workers then.
TICK_SECONDS = 1.0

#: Seconds that workers get to leave at the very end.
LAST_GRACE_SECONDS = 1.0

#: The signals that are not the lifecycle's business.
RELOADING, DUMP = "SIGHUP", "SIGUSR1"

log = logging.getLogger(__name__)


class Arbiter:
    """Everything that must be done in one place, in order, without waiting."""

    def __init__(self, house: House, configuration: str) -> None:
        self.house = house
        #: The file that the settings came from, as far as they came from one.
        self._file = FileWatch(configuration)
        #: Whether the settings are to be read again, by one child at a time.
        self._stale = False
        self._queue = RunQueue()
        self._tidying = Tidying()
        self._wake()
        self._signals = SignalPipe(PARENT)
        self._listen(self._signals, self._heed_signals)

    def open_control(
        self, path: str, answer: Callable[..., Any], changing: frozenset[str]
    ) -> None:
        """Have `answer` answer operators on the socket at `path`.

        Only root and our own user may call the methods named in `changing`. Raises
        what `ControlServer` raises.
        """
        control = ControlServer(path, functools.partial(answer, self.house), changing)
        self._listen(control, control.serve)
        self.house.herald.control = control

    def hire(self, names: Iterable[str]) -> None:
        """Fork the workers; what is imported by now, they share."""
        learn_types()
        give_back_memory()
        gc.freeze()
        gc.enable()
        for name in names:
            self.house.hire(name)

    def run(self) -> int:
        """Serve until the lifecycle says that it is over; the exit status."""
        house = self.house
        close_open_commands(house)
        self._wake()
        while house.exit_status is None:
            self._wait()
            self._keep_time()
            while house.inbox and house.exit_status is None:
                self._take(house.inbox.popleft())
            report_findings(house)
        self._leave()
        return house.exit_status

    def _listen(self, source: Any, heed: Any) -> None:
        self.house.selector.register(source, selectors.EVENT_READ, heed)

    def _wait(self) -> None:
        """Sleep until somebody has something to say or something is due."""
        house, now = self.house, time.monotonic()
        house.known.stood_still(now - self._woke - self._queue.waited() + self._waited)
        dues = (house.timers.next_due(), house.supervisor.next_due())
        waits = [due - now for due in dues if due is not None]
        patience = 0.0 if house.inbox else max(0.0, min([TICK_SECONDS, *waits]))
        ready = house.selector.select(patience)
        self._wake()
        for key, _ in ready:
            key.data()

    def _wake(self) -> None:
        """From now until it waits again the loop is deaf."""
        self._woke, self._waited = time.monotonic(), self._queue.waited()

    def _keep_time(self) -> None:
        house, now = self.house, time.monotonic()
        house.supervisor.check(now)
        house.tasks.check(now)
        if house.herald.control:
            house.herald.control.expire(now)
        self._stale |= self._file.changed()
        if self._stale and not house.tasks.under_way(RELOAD):
            self._reload()
        for name in house.timers.take_due(now):
            house.inbox.append(facts.DeadlinePassed(name))
        house.herald.keep_line(house.vm)
        self._tidying.look(now)
        if house.supervisor.lives(CRITICAL):
            house.notifier.alive()

    def _heed_signals(self) -> None:
        house = self.house
        for name in self._signals.drain():
            if name == RELOADING:
                self._stale = True
            elif name == DUMP:
                log.warning("status: %s", house.herald.status(house.vm))
            else:
                house.inbox.append(facts.SignalReceived(name))

    def _reload(self) -> None:
        """Read the configuration again; what comes of it is judged as a command."""
        self._stale = False
        known = self.house.known
        self.house.tasks.start(reload_task(known.sources, known.current()))

    def _take(self, fact: Fact) -> None:
        house = self.house
        if isinstance(fact, facts.CommandExamined):
            fact = with_settings_checked(fact, house.known.settings)
        note = NOTES.get(type(fact))
        if note:
            note(house, fact)
        if is_repeated(house, fact):
            return
        moment = present()
        after, wanted = step(house.vm, fact, moment)
        if after is not house.vm or wanted:
            self._go_on(after, wanted, fact, moment)
        else:
            log.debug("nothing to do in %s on %r", after.state.value, fact)
        if isinstance(fact, facts.CommandExamined):
            reach("arbiter.obeyed")
        settle = AFTERWARDS.get(type(fact))
        if settle:
            settle(house, fact)
        if house.uplink.offer() and house.vm.flushing and not house.inbox:
            house.inbox.append(facts.EventsFlushed())

    def _go_on(
        self, after: Vm, wanted: list[Effect], fact: Fact, moment: Moment
    ) -> None:
        """First on disk, then in effect."""
        house, before = self.house, self.house.vm
        house.record(after, wanted, moment)
        house.vm = after
        if after.state is not before.state:
            name = type(fact).__name__
            log.info("%s -> %s on %s", before.state.value, after.state.value, name)
        for effect in wanted:
            perform = PERFORM.get(type(effect))
            if perform:
                perform(house, effect)
        house.herald.spread(before, after)
        reach("arbiter.acted")

    def _leave(self) -> None:
        house = self.house
        reach("arbiter.leaving")
        house.notifier.stopping()
        house.tasks.stop()
        house.supervisor.stop(LAST_GRACE_SECONDS)
        if house.herald.control:
            house.herald.control.close()
        self._signals.close()
