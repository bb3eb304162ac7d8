"""How a registered runner is launched."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from miglet.runner.launcher import LaunchSpec
from miglet.workers import registration
from tests.preflight_machine import settings_of


@pytest.fixture
def launched(tmp_path, monkeypatch) -> LaunchSpec:
    """What the launcher was asked to start."""
    specs: list[LaunchSpec] = []
    launcher = SimpleNamespace(start=specs.append)
    monkeypatch.setattr(registration, "runner_launcher", lambda settings: launcher)
    settings = settings_of(tmp_path, paths__runtime=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    host = SimpleNamespace(
        settings=settings,
        extend_liveness=lambda seconds: None,
        report=lambda fact: None,
        folder=SimpleNamespace(note_registration=lambda: None),
    )
    registration.launch(host, "vm-1-1", None)
    (spec,) = specs
    return spec


def test_the_listener_is_started_directly_and_spared_when_memory_is_short(launched):
    program, *arguments = launched.argv
    assert program.endswith("/bin/Runner.Listener") and arguments == ["run"]
    assert launched.name == "vm-1-1"
    assert launched.oom_score_adj == -300
