"""The metrics-sampler: one sample per interval, and pages only where it listens."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest

from miglet.messages.facts import FaultNoted, MachineSampled
from miglet.messages.orders import ShowStatus
from miglet.workers.metrics_sampler import MetricsSampler
from tests.sample_settings import sample_settings
from tests.workers.fakes import IDENTITY, start


def sampler(**metrics):
    """An open metrics-sampler with these settings under ``metrics``, and its queue."""
    worker = MetricsSampler(sample_settings({"metrics": metrics}), IDENTITY)
    return worker, start(worker)


def status_of(worker: MetricsSampler, path: str) -> int:
    url = "http://{}:{}{}".format(*worker._server.address, path)
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def test_each_round_reports_one_sample():
    worker, queue = sampler(collection_interval=7)
    worker.work()
    [sample] = queue.take()
    assert isinstance(sample, MachineSampled)
    assert sample.vm_health["memory_total_bytes"] > 0
    assert worker.period == 7
    worker.close()


def test_changed_settings_change_the_interval_and_what_is_sampled():
    worker, queue = sampler()
    before = worker.settings
    worker.settings = sample_settings(
        {"metrics": {"collection_interval": 3, "include_disk": False}}
    )
    worker.changed(before)
    worker.work()
    [sample] = queue.take()
    assert worker.period == 3
    assert sample.vm_health["disk_total_bytes"] is None
    assert sample.vm_health["network"]


@pytest.mark.integration
def test_the_pages_show_the_sample_and_the_agent():
    worker, _ = sampler(listen="127.0.0.1:0")
    assert status_of(worker, "/healthz") == 503
    worker.work()
    worker.show(ShowStatus({"state": "idle", "ready": True}))
    assert status_of(worker, "/healthz") == status_of(worker, "/readyz") == 200
    worker.close()


def test_an_address_in_use_is_reported_and_the_samples_go_on():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = "{}:{}".format(*taken.getsockname())
        worker, queue = sampler(listen=listen)
        worker.work()
    [fault, sample] = queue.take()
    assert isinstance(fault, FaultNoted) and fault.code == "metrics_listen"
    assert listen in fault.message
    assert isinstance(sample, MachineSampled)
    worker.close()


def test_without_an_address_nothing_is_served():
    worker, _ = sampler()
    assert worker._server is None and worker._pages is None
