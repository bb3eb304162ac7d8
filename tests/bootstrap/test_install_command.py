"""``miglet install-runner``: needs two settings, and says what jobs could change."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from miglet.bootstrap import install_command
from miglet.errors import DONE, MISCONFIGURED
from tests.runner.test_release import archive


@pytest.fixture
def sources(tmp_path: Path):
    """An image is built before the rest of the configuration is known."""
    (tmp_path / "empty.yaml").write_text("")
    user = pwd.getpwuid(os.geteuid()).pw_name
    assignments = [f"runner.directory={tmp_path / 'runner'}", f"runner.user={user}"]
    return {"file": str(tmp_path / "empty.yaml"), "assignments": assignments}


def test_the_release_is_unpacked_where_the_agent_will_start_it(
    sources, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(install_command, "dependency_problems", lambda directory: [])
    made = archive(tmp_path / "release.tar.gz")
    assert install_command.install(sources, str(made), None) == DONE
    assert (tmp_path / "runner" / "config.sh").exists()
    printed = capsys.readouterr().out
    assert f"actions/runner 2.329.0 is in {tmp_path / 'runner'}" in printed
    assert "they can change the runner" in printed


def test_libraries_that_are_missing_are_listed_and_fail_the_build(
    sources, tmp_path, monkeypatch, capsys
):
    problems = ["libicu is missing", "libssl is missing"]
    monkeypatch.setattr(install_command, "dependency_problems", lambda _: problems)
    made = archive(tmp_path / "release.tar.gz")
    assert install_command.install(sources, str(made), None) == MISCONFIGURED
    assert capsys.readouterr().out.splitlines()[-2:] == problems
