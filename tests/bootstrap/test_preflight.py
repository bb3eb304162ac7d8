"""The second phase of the bootstrap: every kind of check, and what the machine is."""

from __future__ import annotations

import os

import psutil
import pytest

from miglet import __version__
from miglet.bootstrap import preflight
from miglet.bootstrap.framework import CHECKS
from miglet.metadata.sources import sources_of
from tests.fresh_interpreter import evaluate
from tests.preflight_machine import settings_of


def test_every_module_has_checks():
    modules = {each.look.__module__ for each in CHECKS.values()}
    assert modules == {module.__name__ for module in preflight.MODULES}


def test_the_report_has_the_rows_of_the_metadata_and_of_each_check(tmp_path):
    settings = settings_of(tmp_path)
    config = {"MIGLET_CONFIG": str(tmp_path / "empty.yaml")}
    found = sources_of({**os.environ, **config}, {"file": None, "assignments": []})
    done = preflight.preflight(found, settings, {"metadata": 1.0})
    names = [row["id"] for row in done.report]
    assert names == [*(row["id"] for row in found.checks()), *CHECKS]
    assert done.machine["version"] == __version__
    assert done.machine["timeline"] == {"metadata": 1.0}


def test_the_machine_is_as_large_as_psutil_says(tmp_path):
    said = preflight.describe(settings_of(tmp_path))
    assert said["memory_bytes"] == psutil.virtual_memory().total
    assert said["disk_bytes"] == psutil.disk_usage(str(tmp_path)).total
    assert said["cpu_count"] == psutil.cpu_count()


@pytest.mark.integration
def test_the_first_phase_does_without_what_the_checks_need():
    loaded = modules_after("miglet.agent.start", "miglet.bootstrap.main")
    unneeded = {"psutil", "miglet.bootstrap.preflight", "urllib.request", "_hashlib"}
    assert loaded.isdisjoint({*unneeded, "ast", "idna", "typing_extensions"})


@pytest.mark.integration
def test_the_second_phase_does_without_what_only_some_machines_need():
    modules = ("miglet.agent.start", "miglet.bootstrap.main", preflight.__name__)
    loaded = modules_after(*modules)
    unneeded = {"psutil", "http.client", "tarfile", "hashlib", "miglet.runner.launcher"}
    assert loaded.isdisjoint(unneeded)


def modules_after(*imported: str) -> set[str]:
    """What is loaded after these imports, in this order, in a fresh interpreter."""
    return set(evaluate(f"import {', '.join(imported)}", "list(sys.modules)"))
