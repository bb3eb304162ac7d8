"""The checks of the runner: folder, user, launch, and what the image left behind."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.preflight_machine import look, settings_of


def test_the_runner_and_its_version_are_seen(tmp_path):
    row = look("runner_folder", settings_of(tmp_path))
    assert row["status"] == "ok"
    assert "2.336.0" in row["detail"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda root: (root / "bin" / "Runner.Listener").unlink(), "Runner.Listener"),
        (lambda root: (root / "bin" / "Runner.Worker").unlink(), "Runner.Worker"),
        (lambda root: (root / "config.sh").unlink(), "config.sh"),
        (lambda root: (root / "config.sh").chmod(0o644), "executable"),
        (lambda root: root.rename(root.with_name("moved")), "does not exist"),
        (lambda root: shutil.rmtree(root / "bin"), "Runner.Listener"),
    ],
)
def test_a_runner_that_is_not_whole_is_a_misconfiguration(tmp_path, damage, expected):
    settings = settings_of(tmp_path)
    damage(tmp_path / "runner")
    row = look("runner_folder", settings)
    assert (row["status"], row["category"]) == ("fail", "misconfig")
    assert expected in row["detail"]
    assert row["hint"]


def test_a_runner_without_node_is_warned_of(tmp_path):
    settings = settings_of(tmp_path)
    assert look("runner_externals", settings)["detail"] == "node20"
    shutil.rmtree(tmp_path / "runner" / "externals")
    row = look("runner_externals", settings)
    assert row["status"] == "warn"
    assert "JavaScript" in row["detail"]


def test_a_user_that_does_not_exist_is_named(tmp_path):
    row = look("runner_user", settings_of(tmp_path, runner__user="nobody-at-all"))
    assert (row["status"], row["category"]) == ("fail", "misconfig")
    assert "nobody-at-all" in row["detail"]
    assert "runner.user" in row["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run jobs as somebody")
def test_jobs_may_run_as_anybody_but_better_not_as_root(tmp_path):
    row = look("runner_user", settings_of(tmp_path, runner__user="nobody"))
    assert (row["status"], row["detail"]) == ("ok", "jobs run as nobody (uid 65534)")
    row = look("runner_user", settings_of(tmp_path, runner__user="root"))
    assert (row["status"], row["detail"]) == ("warn", "jobs run as root")


@pytest.mark.parametrize(
    ("wanted", "status"), [("auto", "ok"), ("process", "ok"), ("systemd", "fail")]
)
def test_a_launch_that_cannot_be_had_is_a_misconfiguration(tmp_path, wanted, status):
    row = look("runner_isolation", settings_of(tmp_path, runner__isolation=wanted))
    assert row["status"] == status


@pytest.mark.parametrize("name", [".runner", ".credentials", ".runner_migrated"])
def test_an_image_with_a_registration_is_warned_of(tmp_path, name):
    settings = settings_of(tmp_path)
    assert look("earlier_registration", settings)["status"] == "ok"
    (tmp_path / "runner" / name).write_text("{}")
    row = look("earlier_registration", settings)
    assert row["status"] == "warn"
    assert row["detail"].startswith(name)
