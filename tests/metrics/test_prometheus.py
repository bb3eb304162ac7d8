"""The page for Prometheus: its syntax, its names, its values; and the health pages."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from miglet.metrics.machine import METRICS, Machine, Sampler
from miglet.metrics.prometheus import AGENT, Pages

SAMPLE = {
    "cpu_percent": 25.0,
    "load1": 0.5,
    "memory_used_bytes": 1000,
    "memory_total_bytes": 4000,
    "disk_used_bytes": 10,
    "disk_total_bytes": 20,
    "disk_inodes_used_count": 3,
    "disk_inodes_total_count": 4,
    "pressure": {"cpu": {"some_avg10": 50.0, "full_avg10": None}},
    "oom_kills": 2,
    "network": {
        "rx_bytes": 1,
        "tx_bytes": 2,
        "rx_errors": 3,
        "tx_errors": 4,
        "rx_dropped": 5,
        "tx_dropped": 6,
    },
}

SNAPSHOT = {
    "version": '1.2"\\\n',
    "state": "job_running",
    "states": {"idle": False, "job_running": True},
    "ready": True,
    "workers": {"runner-watcher": {"pid": 7, "healthy": True, "restarts": 2}},
    "events": {"pending": 1, "delivered": 20, "rejected": 3, "dropped": 0},
    "job": {
        "cpu_seconds": 1.5,
        "max_memory_bytes": 10,
        "io_read_bytes": None,
        "io_write_bytes": 30,
    },
    "job_elapsed_seconds": 12.0,
    "last_heartbeat_now": 90.0,
    "uptime_seconds": 33.0,
    "clock_offset_seconds": -1.5,
}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def get(pages: Pages, path: str, **environ: str) -> Answer:
    """The pages' answer to a GET of `path`."""
    heads: list[tuple[str, list[tuple[str, str]]]] = []
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": path, **environ}
    body = b"".join(pages(request, lambda *head: heads.append(head)))
    [(status, headers)] = heads
    return Answer(int(status.split()[0]), dict(headers), body)


def page(sample: dict, agent: dict) -> str:
    pages = Pages(30.0, Clock())
    pages.show_sample(sample)
    pages.show_agent(agent)
    return get(pages, "/metrics").body.decode()


def values(sample: dict, agent: dict) -> dict:
    families = text_string_to_metric_families(page(sample, agent))
    return {
        (each.name, *each.labels.values()): each.value
        for family in families
        for each in family.samples
    }


def test_a_full_page_has_all_values_in_base_units():
    shown = values(SAMPLE, SNAPSHOT)
    assert shown["miglet_cpu_ratio",] == 0.25
    assert shown["miglet_pressure_ratio", "some", "cpu"] == 0.5
    assert ("miglet_pressure_ratio", "full", "cpu") not in shown
    assert shown["miglet_clock_offset_seconds",] == -1.5
    assert shown["miglet_heartbeat_age_seconds",] == 10.0
    assert shown["miglet_events_total", "delivered"] == 20
    assert shown["miglet_events_pending",] == 1
    assert shown["miglet_worker_restarts_total", "runner-watcher"] == 2
    assert shown["miglet_worker_healthy", "runner-watcher"] == 1
    assert shown["miglet_oom_kills_total",] == 2
    assert shown["miglet_network_bytes_total", "receive"] == 1
    assert shown["miglet_job_running",] == 1
    assert shown["miglet_state", "job_running"] == 1
    assert shown["miglet_state", "idle"] == 0
    assert shown["miglet_job_io_bytes", "write"] == 30
    assert ("miglet_job_io_bytes", "read") not in shown
    assert shown["miglet_build_info", '1.2"\\\n'] == 1


def test_without_a_job_its_families_are_not_there():
    shown = values(SAMPLE, {**SNAPSHOT, "job": None, "job_elapsed_seconds": None})
    assert shown["miglet_job_running",] == 0
    assert not [
        key for key in shown if key[0].startswith("miglet_job_") and len(key) > 1
    ]
    assert ("miglet_job_elapsed_seconds",) not in shown


@pytest.mark.parametrize(
    ("sample", "agent"),
    [
        ({}, {}),
        (dict.fromkeys(SAMPLE), {}),
        (SAMPLE, {"workers": None, "events": None, "job": {}}),
        ({"pressure": {}, "network": {}}, {"workers": {"x": {}}}),
    ],
)
def test_what_is_not_known_is_not_shown(sample: dict, agent: dict):
    text = page(sample, agent)
    assert "miglet_build_info" in text
    assert "None" not in text and "NaN" not in text


def test_a_real_sample_makes_a_page():
    sample = Sampler(Machine()).sample()
    assert values(sample, {})["miglet_memory_size_bytes",] > 0


def test_the_names_follow_the_conventions():
    for family in text_string_to_metric_families(page(SAMPLE, SNAPSHOT)):
        assert re.fullmatch(r"miglet_[a-z0-9]+(_[a-z0-9]+)*", family.name)
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert not re.search("percent|_ms$|kilo|mega|milli", sample.name)
    machine = [each for metric in METRICS.values() for each in metric.series]
    names = [series.name for series in (*AGENT, *machine)]
    assert len(names) == len(set(names))


def test_openmetrics_is_spoken_to_those_who_ask_for_it():
    pages = Pages(30.0)
    pages.show_agent(SNAPSHOT)
    accept = "application/openmetrics-text; version=1.0.0"
    answer = get(pages, "/metrics", HTTP_ACCEPT=accept)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = list(openmetrics.text_string_to_metric_families(answer.body.decode()))
    assert "miglet_events" in {family.name for family in families}
    plain = get(pages, "/metrics", HTTP_ACCEPT="*/*").headers["Content-Type"]
    assert plain.startswith("text/plain; version=")


@pytest.mark.integration
def test_a_sampler_that_does_not_listen_needs_neither_prometheus_nor_a_server():
    code = (
        "import sys, miglet.workers.metrics_sampler;"
        "sys.exit(bool({'prometheus_client', 'wsgiref'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pages(clock: Clock) -> Pages:
    shown = Pages(30.0, clock)
    shown.show_sample(SAMPLE)
    shown.show_agent(SNAPSHOT)
    return shown


def test_health_is_green_while_facts_are_fresh(pages: Pages, clock: Clock):
    assert get(pages, "/healthz").status == 200
    clock.now += 29
    assert get(pages, "/healthz").status == 200
    pages.show_agent(SNAPSHOT)
    clock.now += 2
    stale = get(pages, "/healthz")
    assert (stale.status, stale.body) == (503, b"no sample of the machine for 30 s\n")
    assert get(pages, "/readyz").status == 503
    pages.show_sample(SAMPLE)
    assert get(pages, "/healthz").status == 200
    clock.now += 29
    pages.show_sample(SAMPLE)
    assert b"arbiter" in get(pages, "/healthz").body


def test_before_the_first_facts_nothing_is_green(clock: Clock):
    pages = Pages(30.0, clock)
    assert get(pages, "/healthz").status == get(pages, "/readyz").status == 503
    assert get(pages, "/metrics").status == 200


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_readiness_is_what_the_arbiter_says_and_names_the_state(pages, ready, status):
    pages.show_agent({**SNAPSHOT, "state": "draining", "ready": ready})
    answer = get(pages, "/readyz")
    assert (answer.status, answer.body) == (status, b"draining\n")
    assert get(pages, "/healthz").status == 200


def test_ages_grow_between_two_requests(pages: Pages, clock: Clock):
    clock.now = 95.0
    assert b"miglet_heartbeat_age_seconds 5.0" in get(pages, "/metrics").body
    clock.now = 97.0
    assert b"miglet_heartbeat_age_seconds 7.0" in get(pages, "/metrics").body


def test_other_paths_and_methods_are_refused(pages: Pages):
    assert get(pages, "/").status == 404
    refused = get(pages, "/metrics", REQUEST_METHOD="POST")
    assert refused.status == 405 and refused.headers["Allow"] == "GET, HEAD"
    head = get(pages, "/healthz", REQUEST_METHOD="HEAD")
    assert head.status == 200 and head.body == b""
