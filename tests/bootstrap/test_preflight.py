"""The second phase of the bootstrap: every kind of check, and what the machine is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from miglet import __version__
from miglet.bootstrap import preflight
from miglet.bootstrap.framework import CHECKS
from miglet.metadata.sources import sources_of
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


@pytest.mark.integration
def test_the_first_phase_does_without_what_the_checks_need():
    program = "import sys, miglet.bootstrap.main; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    loaded = {*ran.stdout.split()}
    assert "miglet.bootstrap.main" in loaded, ran.stderr
    assert loaded.isdisjoint({"psutil", "miglet.bootstrap.preflight"})
