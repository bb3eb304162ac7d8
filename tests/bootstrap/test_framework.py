"""The report: every check answered for, in time, fit for events and for people."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time

import pytest

import miglet.bootstrap.preflight  # noqa: F401  # registers the checks
from miglet.bootstrap.framework import (
    CHECKS,
    Check,
    CheckWarning,
    Misconfiguration,
    report,
    table,
)
from miglet.config.settings import Settings
from tests.preflight_machine import look, settings_of
from tests.support import Stopwatch, eventually


@pytest.fixture
def never():
    """Waits as long as a test lasts, and lets the hanging threads end with it."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hangs(never):
    def hang(settings: Settings, deadline: float) -> str:
        never.wait(30)
        return "never"

    return hang


def test_a_sound_machine_fails_nothing(tmp_path):
    rows = report(settings_of(tmp_path))
    assert [row for row in rows if row["status"] == "fail"] == []
    assert [row["id"] for row in rows] == list(CHECKS)
    assert json.loads(json.dumps(rows)) == rows


def test_without_docker_and_network_the_boot_is_hardly_held_up(tmp_path):
    settings = settings_of(tmp_path)

    def all_seconds() -> float:
        """What all checks take one after the other: none waits for anything."""
        watch = Stopwatch()
        for name in CHECKS:
            look(name, settings)
        return watch.seconds()

    def report_is_cheap() -> bool:
        began = time.process_time()
        report(settings)
        return time.process_time() - began < 0.03

    eventually(lambda: all_seconds() < 0.03, what="all checks within 30 ms")
    eventually(report_is_cheap, what="a report that takes 30 ms of a processor")


@pytest.mark.integration
def test_the_start_is_spared_the_http_libraries():
    code = "import sys, miglet.bootstrap.preflight; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert {"requests", "urllib3"}.isdisjoint(loaded)


def test_every_check_says_what_it_is_for():
    for each in CHECKS.values():
        assert each.look.__doc__


def test_a_check_that_hangs_is_answered_for(tmp_path, hangs):
    checks = {"needed": Check(hangs), "brief": Check(hangs, 0.3)}
    watch = Stopwatch()
    rows = report(settings_of(tmp_path, bootstrap__timeout="1s"), checks)
    assert watch.seconds() < 2.0
    assert [row["status"] for row in rows] == ["fail", "warn"]
    assert [row["category"] for row in rows] == ["infrastructure", ""]
    assert "no answer within 1 s" in rows[0]["detail"]
    assert "no answer within 0.3 s" in rows[1]["detail"]


def test_the_report_keeps_within_a_very_short_timeout(tmp_path, hangs):
    checks = {"brief": Check(hangs, 3.0), "needed": Check(hangs)}
    watch = Stopwatch()
    rows = report(settings_of(tmp_path, bootstrap__timeout="100ms"), checks)
    assert watch.seconds() < 2.0
    assert {row["detail"] for row in rows} == {"no answer within 0.1 s"}


def test_what_is_only_nice_to_know_does_not_hold_up_the_boot(tmp_path, hangs):
    watch = Stopwatch()
    report(settings_of(tmp_path), {"brief": Check(hangs, 0.3)})
    assert watch.seconds() < 5.0


def test_checks_run_side_by_side(tmp_path):
    together = threading.Barrier(3, timeout=5)

    def meets(settings: Settings, deadline: float) -> str:
        together.wait()
        return "met"

    rows = report(settings_of(tmp_path), {name: Check(meets) for name in "abc"})
    assert [row["detail"] for row in rows] == ["met"] * 3


def test_a_check_that_breaks_is_reported_at_once_with_its_traceback(
    tmp_path, monkeypatch
):
    raised: queue.SimpleQueue[threading.ExceptHookArgs] = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", raised.put)

    def broken(settings: Settings, deadline: float) -> str:
        raise ZeroDivisionError

    watch = Stopwatch()
    settings = settings_of(tmp_path, bootstrap__timeout="10s")
    rows = report(settings, {"thing": Check(broken)})
    assert watch.seconds() < 5
    assert rows[0]["status"] == "fail"
    assert rows[0]["detail"] == "the check itself failed"
    assert raised.get(timeout=5).exc_type is ZeroDivisionError


@pytest.mark.parametrize(("seconds", "status"), [(None, "fail"), (1.0, "warn")])
def test_what_cannot_be_looked_at_is_a_fault_only_where_it_is_needed(
    tmp_path, seconds, status
):
    def unreadable(settings: Settings, deadline: float) -> str:
        raise PermissionError(13, "Permission denied", "/secret")

    rows = report(settings_of(tmp_path), {"thing": Check(unreadable, seconds)})
    assert rows[0]["status"] == status
    assert "/secret" in rows[0]["detail"]


def wrong(settings: Settings, deadline: float) -> str:
    raise Misconfiguration("it is\nwrong\x1b[2J", "put it right")


def odd(settings: Settings, deadline: float) -> str:
    raise CheckWarning("it is odd", "")


def test_the_table_is_for_people(tmp_path):
    checks = {
        "thing": Check(wrong),
        "longer_name": Check(odd),
        "other": Check(lambda *_: "fine"),
    }
    lines = table(report(settings_of(tmp_path), checks)).splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["fail", "thing"],
        ["->", "put"],
        ["warn", "longer_name"],
        ["ok", "other"],
    ]
    assert lines[0].index("it is wrong [2J") == lines[1].index("->")
    assert lines[0].index("it is") == lines[2].index("it is") == lines[3].index("fine")
    assert lines[4] == ""
    assert lines[5:] == [
        "3 checks: 1 ok, 1 warn, 1 fail. This machine cannot take jobs."
    ]


def test_one_check_is_not_checks(tmp_path):
    text = table(report(settings_of(tmp_path), {"odd": Check(odd)}))
    assert text.endswith("1 check: 0 ok, 1 warn, 0 fail. This machine can take jobs.")
