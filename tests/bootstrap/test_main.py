"""The bootstrap child: which facts come of a configuration, good or bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from miglet.bootstrap import framework, preflight
from miglet.bootstrap import main as child
from miglet.errors import MISCONFIGURED, UNAVAILABLE
from miglet.messages.facts import (
    FaultNoted,
    PreflightDone,
    SettingsLoaded,
    SettingsRefused,
)
from miglet.metadata.attempts import MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.settings import settings_in
from miglet.metadata.sources import Sources
from miglet.runner.identity import ProcIncomplete
from tests.workers.fakes import FakeQueue

COMPLETE = (
    "pool_id=p",
    "vm_id=v",
    "org_id=o",
    "controller.endpoint=http://127.0.0.1:1",
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    """Runs the child in this process; returns the facts."""
    monkeypatch.setenv("MIGLET_CLOUD", "none")
    monkeypatch.setattr(framework, "report", lambda settings: [])
    (tmp_path / "empty.yaml").write_text("")

    def facts(*assignments: str) -> list[Any]:
        queue = FakeQueue()
        file = str(tmp_path / "empty.yaml")
        child.main(queue, {"file": file, "assignments": assignments})
        return queue.take()

    return facts


def test_settings_come_before_the_checks(run):
    loaded, done = run(*COMPLETE)
    assert isinstance(loaded, SettingsLoaded) and isinstance(done, PreflightDone)
    assert loaded.settings["pool_id"] == "p"
    assert any(each["key"] == "pool_id" for each in loaded.origins)


def test_the_machine_is_described_whatever_cloud_it_is_in(run):
    *_, done = run(*COMPLETE)
    assert done.machine["cloud"] is None and done.machine["hostname"]
    assert done.machine["cpu_count"] >= 1 and done.machine["memory_bytes"] > 0
    assert done.machine["timeline"] == {}


def test_every_mistake_is_reported_with_settings_that_reach_the_controller(run):
    (refused,) = run(*COMPLETE, "heartbeat.interval=soon", "controller.timeout=never")
    assert isinstance(refused, SettingsRefused)
    assert {"heartbeat.interval", "controller.timeout"} == {
        each["key"] for each in refused.faults
    }
    assert refused.settings and refused.settings["controller"]["endpoint"]
    assert refused.exit_status == MISCONFIGURED


def test_without_an_endpoint_nobody_can_be_notified(run):
    (refused,) = run("pool_id=p", "vm_id=v", "org_id=o")
    assert refused.settings is None


def test_what_only_metadata_can_provide_may_be_there_at_the_next_start(
    run, monkeypatch
):
    real = child.sources_of

    def without_metadata(environ, sources) -> Sources:
        found = real(environ, sources)
        error = MetadataUnavailable("no answer")
        return Sources(found.layers, "gce", None, error, 1.0)

    monkeypatch.setattr(child, "sources_of", without_metadata)
    (refused,) = run("pool_id=p")
    assert refused.exit_status == UNAVAILABLE
    loaded, note, done = run(*COMPLETE)
    assert isinstance(note, FaultNoted) and note.code == "metadata_unavailable"
    assert done.report[0]["id"] == "metadata" and done.report[0]["status"] == "warn"


def test_the_time_at_which_metadata_was_there_is_in_the_timeline(run, monkeypatch):
    real = child.sources_of
    metadata = settings_in(Metadata("gce", zone="z"))

    def in_a_cloud(environ, sources) -> Sources:
        return Sources(real(environ, sources).layers, "gce", metadata)

    monkeypatch.setattr(child, "sources_of", in_a_cloud)
    *_, done = run(*COMPLETE)
    assert done.machine["zone"] == "z" and done.machine["timeline"]["metadata"] > 0


def test_without_the_boots_id_the_checks_are_not_reported(run, monkeypatch):
    def incomplete() -> str:
        raise ProcIncomplete("/proc/sys/kernel/random/boot_id")

    monkeypatch.setattr(preflight, "boot_id", incomplete)
    assert [type(each) for each in run(*COMPLETE)] == [SettingsLoaded]
