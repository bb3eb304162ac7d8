"""The workers by name, in the order in which they are started."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from miglet.messages.codec import Fact
from miglet.messages.facts import ControllerTokenTaken, TerminationNoticed
from miglet.workers.base import Worker
from miglet.workers.command_poller import CommandPoller
from miglet.workers.heartbeat_sender import HeartbeatSender
from miglet.workers.metrics_sampler import MetricsSampler
from miglet.workers.runner_watcher import RunnerWatcher


class LateWorker(NamedTuple):
    """A worker whose class only the child that becomes it imports."""

    module: str
    attribute: str
    #: As the class has them.
    facts: frozenset[type[Fact]]


#: Started on every machine.
ALWAYS: dict[str, type[Worker]] = {
    each.name: each
    for each in (
        HeartbeatSender,
        RunnerWatcher,
        CommandPoller,
        MetricsSampler,
    )
}

#: Started when the machine turns out to be in a cloud; imported only by the child that
#: becomes it, since most machines of a test or a data centre never need it.
IN_A_CLOUD = "notice-watcher"
LATE = {
    IN_A_CLOUD: LateWorker(
        module="miglet.workers.notice_watcher",
        attribute="NoticeWatcher",
        facts=frozenset({TerminationNoticed, ControllerTokenTaken}),
    )
}

#: The last to go: it delivers what the others had to say.
UPLINK = HeartbeatSender.name

#: Without them no job can be taken or reported: while one of them is not alive, systemd
#: gets no watchdog notification, and restarts MIGlet.
CRITICAL = (UPLINK, RunnerWatcher.name)

#: All workers that there may be.
NAMES = (*ALWAYS, *LATE)


def worker_class(name: str) -> type[Worker]:
    """The class of the worker with this name."""
    if name in ALWAYS:
        return ALWAYS[name]
    late = LATE[name]
    return getattr(importlib.import_module(late.module), late.attribute)


def facts_of(name: str) -> frozenset[type[Fact]]:
    """The types of the facts that this worker may send."""
    return ALWAYS[name].facts if name in ALWAYS else LATE[name].facts
