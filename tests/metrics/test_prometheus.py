"""The page for Prometheus: its syntax, its names, its values; and the health pages."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from miglet.lifecycle.vm import State
from miglet.metrics import Machine, Sampler
from miglet.metrics.pages import Pages
from miglet.metrics.prometheus import FAMILIES, STATES, Exposition, Seen
from tests.metrics.test_machine import Wanted

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
    "clock_offset_ms": -1500.0,
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
}


def page(seen: Seen, accept: str = "") -> str:
    exposition = Exposition()
    exposition.seen = seen
    return exposition.page(accept)[1].decode()


def values(seen: Seen) -> dict:
    families = text_string_to_metric_families(page(seen))
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_full_page_has_all_values_in_base_units():
    shown = values(Seen(SAMPLE, SNAPSHOT, now=100.0))
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
    assert shown["miglet_job_io_bytes", "write"] == 30
    assert ("miglet_job_io_bytes", "read") not in shown
    assert shown["miglet_build_info", '1.2"\\\n'] == 1


def test_exactly_the_present_state_is_one():
    shown = values(Seen({}, {"state": "idle"}))
    states = {key[1]: value for key, value in shown.items() if key[0] == "miglet_state"}
    assert states == {name: float(name == "idle") for name in STATES}


def test_the_states_are_those_of_the_lifecycle():
    assert set(STATES) == {state.value for state in State}


def test_without_a_job_its_families_are_not_there():
    shown = values(Seen(SAMPLE, {**SNAPSHOT, "job": None, "job_elapsed_seconds": None}))
    assert shown["miglet_job_running",] == 0
    assert not [
        key for key in shown if key[0].startswith("miglet_job_") and len(key) > 1
    ]
    assert ("miglet_job_elapsed_seconds",) not in shown


@pytest.mark.parametrize(
    "seen",
    [
        Seen(),
        Seen(dict.fromkeys(SAMPLE), {}),
        Seen(SAMPLE, {"workers": None, "events": None, "job": {}}),
        Seen({"pressure": {"cpu": None}, "network": {}}, {"workers": {"x": {}}}),
    ],
)
def test_what_is_not_known_is_not_shown(seen: Seen):
    assert "miglet_build_info" in page(seen)
    assert "None" not in page(seen) and "NaN" not in page(seen)


def test_a_real_sample_makes_a_page():
    sample = Sampler(Wanted(), Machine()).sample()
    assert values(Seen(sample, {}))["miglet_memory_size_bytes",] > 0


def test_the_names_follow_the_conventions():
    for family in text_string_to_metric_families(page(Seen(SAMPLE, SNAPSHOT, 100.0))):
        assert re.fullmatch(r"miglet_[a-z0-9]+(_[a-z0-9]+)*", family.name)
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert not re.search("percent|_ms$|kilo|mega|milli", sample.name)
    names = [name for _, name, _, _ in FAMILIES]
    assert len(names) == len(set(names))
    assert all((family.__doc__ or "").strip() for *_, family in FAMILIES)


def test_openmetrics_is_spoken_to_those_who_ask_for_it():
    exposition = Exposition()
    exposition.seen = Seen(SAMPLE, SNAPSHOT, 100.0)
    content_type, body = exposition.page("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = list(openmetrics.text_string_to_metric_families(body.decode()))
    assert "miglet_events" in {family.name for family in families}
    assert exposition.page("*/*")[0].startswith("text/plain; version=0.0.4")


def test_the_heartbeat_alone_needs_no_prometheus_client():
    code = (
        "import sys, miglet.metrics, miglet.metrics.http;"
        "sys.exit('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pages(clock: Callable[[], float]) -> Pages:
    shown = Pages(30.0, clock)
    shown.sampled(SAMPLE)
    shown.told(SNAPSHOT)
    return shown


def test_health_is_green_while_facts_are_fresh(pages: Pages, clock: Clock):
    assert pages.healthz("").status == 200
    clock.now += 29
    assert pages.healthz("").status == 200
    pages.told(SNAPSHOT)
    clock.now += 2
    assert pages.healthz("") == (
        503,
        b"no sample of the machine for 30 s\n",
        "text/plain; charset=utf-8",
    )
    pages.sampled(SAMPLE)
    assert pages.healthz("").status == 200
    clock.now += 29
    pages.sampled(SAMPLE)
    assert b"arbiter" in pages.healthz("").body


def test_before_the_first_facts_nothing_is_green(clock: Clock):
    pages = Pages(30.0, clock)
    assert pages.healthz("").status == pages.readyz("").status == 503
    assert pages.metrics("").status == 200


@pytest.mark.parametrize("state", STATES)
def test_ready_is_a_machine_with_a_runner_or_a_job(pages: Pages, state: str):
    pages.told({**SNAPSHOT, "state": state})
    ready = pages.readyz("").status == 200
    assert ready == (state in ("idle", "job_running"))
    assert pages.healthz("").status == 200
    assert state.encode() in pages.readyz("").body


def test_ages_grow_between_two_looks_at_the_page(pages: Pages, clock: Clock):
    clock.now = 95.0
    assert b"miglet_heartbeat_age_seconds 5.0" in pages.metrics("").body
    clock.now = 97.0
    assert b"miglet_heartbeat_age_seconds 7.0" in pages.metrics("").body
