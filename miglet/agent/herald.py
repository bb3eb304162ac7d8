"""Tells everybody who wants to know: workers, heartbeats, metrics, systemd, watchers.

It composes nothing itself (`status` does) and decides nothing.
"""

from __future__ import annotations

import time
from typing import Any

from miglet import logger
from miglet.agent import status
from miglet.agent.status import Knowledge
from miglet.control.server import ControlServer
from miglet.journal.journal import Journal
from miglet.lifecycle.vm import Moment, State, Vm
from miglet.messages.events import JobReference, timestamp
from miglet.messages.orders import Beat, FollowJob, ShowStatus
from miglet.supervisor.supervisor import Supervisor
from miglet.supervisor.systemd import Notifier
from miglet.workers.registry import UPLINK

#: What systemd does not take for a start that succeeded.
UNREADY = (State.INITIALIZING, State.ERROR, State.SHUTTING_DOWN)


def present() -> Moment:
    """This moment."""
    return Moment(time.time(), time.monotonic())


class Herald:
    """Spreads what has changed, to the workers and to the world."""

    def __init__(
        self,
        known: Knowledge,
        journal: Journal,
        supervisor: Supervisor,
        notifier: Notifier,
    ) -> None:
        self._known = known
        self._journal = journal
        self._supervisor = supervisor
        self._notifier = notifier
        #: Where watchers are; None until the control socket is open.
        self.control: ControlServer | None = None
        self._shown = ""

    def status(self, vm: Vm) -> dict[str, Any]:
        """The status object."""
        return status.status_object(
            vm,
            self._known,
            self._supervisor.health(),
            self._journal.counts(),
            self._journal.degraded,
            present(),
        )

    def spread(self, before: Vm, after: Vm) -> None:
        """Everybody hears of a new state, and of a new or better known job."""
        moved = after.state is not before.state
        met = _reference(before) != _reference(after)
        if met:
            self.name_job(after)
        if moved:
            self._proclaim(after)
        if moved or met:
            self.beat(after, at_once=moved)

    def name_job(self, vm: Vm) -> None:
        """Every log line names the job from now on."""
        reference = _reference(vm) or (None, None, None)
        logger.set_job(*reference)
        self._supervisor.tell_all(FollowJob(*reference))

    def beat(self, vm: Vm, at_once: bool = False) -> None:
        """What the heartbeats and the metrics say from now on."""
        health, counts, moment = (
            self._supervisor.health(),
            self._journal.counts(),
            present(),
        )
        content = status.beat(vm, self._known, health, counts, moment)
        job = status.job_beat(vm, self._known, moment)
        self._supervisor.tell(UPLINK, Beat(content, job, at_once))
        if self._known.settings.metrics.listen:
            shown = status.snapshot(vm, self._known, health, counts, moment)
            self._supervisor.tell("metrics-sampler", ShowStatus(shown))

    def keep_line(self, vm: Vm) -> None:
        """What systemd shows names the job and its minutes as they are now."""
        line = status.one_line(vm, present())
        if line != self._shown:
            self._shown = line
            self._notifier.status(line)

    def _proclaim(self, vm: Vm) -> None:
        if vm.state not in UNREADY:
            self._notifier.ready(status.one_line(vm, present()))
        self.keep_line(vm)
        if self.control:
            news = {"state": vm.state.value, "at": timestamp(present().at)}
            self.control.publish(news)


def _reference(vm: Vm) -> JobReference | None:
    return vm.job.reference if vm.job else None
