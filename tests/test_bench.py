"""The benchmarks: what they measure with, and that all they show is measured."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import psutil
import pytest

from tests import bench
from tests.bench_instruments import (
    Clock,
    alone_bytes,
    cpu_seconds,
    median,
    megabytes,
    percent,
    pss_bytes,
    quantiles,
)
from tests.terminal import Terminal


@pytest.fixture
def clock() -> Clock:
    return Clock(Terminal(io.StringIO(), {}))


def test_a_quantile_is_one_of_the_durations() -> None:
    durations = [number / 1000 for number in range(101)]
    assert median(durations) == "50.0 ms"
    assert quantiles(durations) == "50.0 / 95.0 ms"
    assert quantiles([0.002]) == "2.0 / 2.0 ms"


def test_a_share_of_a_processor_has_two_places() -> None:
    assert percent(0.15, 60.0) == "0.25 %"


def test_memory_and_processor_are_those_of_the_processes() -> None:
    own = psutil.Process(os.getpid())
    assert 5e6 < pss_bytes([own]) < 2e9
    assert cpu_seconds([own]) > 0.0


def test_memory_is_shown_in_megabytes() -> None:
    assert megabytes(49_960_000) == "50.0 MB"


def test_what_forked_processes_share_counts_once_whoever_else_has_it() -> None:
    own = psutil.Process(os.getpid())
    before = alone_bytes([own])
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        both = [own, psutil.Process(child)]
        assert pss_bytes(both) <= alone_bytes(both) < 1.5 * before
    finally:
        os.close(write)
        os.waitpid(child, 0)


def test_the_clock_waits_as_long_as_it_is_asked_to(clock: Clock) -> None:
    began = time.monotonic()
    clock.wait(0.05, "nothing")
    assert time.monotonic() - began >= 0.05


def test_the_clock_waits_for_a_condition(clock: Clock) -> None:
    answers = iter([False, True])
    clock.until(lambda: next(answers), "the second answer")
    assert next(answers, None) is None


def test_the_table_has_a_row_for_each_figure_and_a_dash_for_what_is_missing() -> None:
    out = io.StringIO()
    columns: dict[str, bench.Figures] = {
        name: {} for name in ("http", "https", "Debian", "supervisord")
    }
    columns["http"]["memory"] = "31.0 MB"
    bench.show(Terminal(out, {}), columns)
    rows = {
        line[:50].rstrip(): line[50:].split() for line in out.getvalue().splitlines()
    }
    memory = rows["memory at rest (PSS, whole tree)"]
    assert memory == ["31.0", "MB", "-", "-", "-", "50", "MB"]
    assert {label for _, label, _ in bench.FIGURES} <= rows.keys()


@pytest.mark.integration
@pytest.mark.slow
def test_memory_is_measured_at_rest_and_with_a_job_of_many_processes(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "PROCESSES", 20)
    for seconds in ("SETTLE_SECONDS", "REST_SECONDS", "CROWDED_SECONDS"):
        monkeypatch.setattr(bench, seconds, 0.1)
    terminal = Terminal(io.StringIO(), {})
    with bench.site(terminal, clock, tmp_path / "site", encrypted=True) as site:
        with site.machine("rest", {"listener": {"scenario": "idle"}}) as (agent, _):
            agent.start()
            figures = bench.at_rest(site, agent)
        figures |= bench.crowded(site)
    assert figures.keys() == {"memory", "alone", "processor", "crowded"}
    assert figures["processor"].endswith(" %")
    for name in ("memory", "alone", "crowded"):
        assert 20.0 < float(figures[name].removesuffix(" MB")) < 200.0


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("encrypted", [False, True])
def test_the_times_of_a_job_are_measured_over_http_and_https(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    monkeypatch.setattr(bench, "JOBS", 2)
    terminal = Terminal(io.StringIO(), {})
    with bench.site(terminal, clock, tmp_path / "site", encrypted) as site:
        figures = bench.jobs(site)
    shown = {key for key, _, _ in bench.FIGURES}
    assert figures.keys() <= shown
    assert all(value.endswith(" ms") for value in figures.values())
    message = float(figures["runner_message"].partition(" ")[0])
    assert message >= 475.0
