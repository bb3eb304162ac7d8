"""The workers by name, in the order in which they are hired."""

from __future__ import annotations

from miglet.workers.base import Worker
from miglet.workers.command_poller import CommandPoller
from miglet.workers.heartbeat_sender import HeartbeatSender
from miglet.workers.metrics_sampler import MetricsSampler
from miglet.workers.notice_watcher import NoticeWatcher
from miglet.workers.runner_watcher import RunnerWatcher

CREW: dict[str, type[Worker]] = {
    each.name: each
    for each in (
        HeartbeatSender,
        RunnerWatcher,
        CommandPoller,
        MetricsSampler,
        NoticeWatcher,
    )
}

#: Hired only when the machine turns out to be in a cloud.
IN_A_CLOUD = NoticeWatcher.name

#: Hired at the start of every machine.
ALWAYS = tuple(name for name in CREW if name != IN_A_CLOUD)

#: The last to go: it delivers what the others had to say.
UPLINK = HeartbeatSender.name
