"""The four workers by name, in the order in which they are hired."""

from __future__ import annotations

from miglet.workers.base import Worker
from miglet.workers.command_poller import CommandPoller
from miglet.workers.heartbeat_sender import HeartbeatSender
from miglet.workers.metrics_sampler import MetricsSampler
from miglet.workers.runner_watcher import RunnerWatcher

CREW: dict[str, type[Worker]] = {
    each.name: each
    for each in (HeartbeatSender, RunnerWatcher, CommandPoller, MetricsSampler)
}

#: The last to go: it delivers what the others had to say.
UPLINK = HeartbeatSender.name
