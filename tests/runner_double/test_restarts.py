"""Connecting, and what `run.sh` makes of it: scenarios 20 to 26, 34 and 40."""

from __future__ import annotations

import os

import pytest

from tests.runner_double.stage import Stage, await_truth, run, stage, unstamped

__all__ = ["stage"]
DEPRECATED = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"


def test_a_session_conflict_is_reported_eight_times(stage: Stage) -> None:
    ended = run(stage.ready({"scenario": "session_conflict"}), "run.sh")
    assert ended.stdout.count("√ Connected to GitHub\n") == 8
    assert ended.stderr.count("A session for this runner already exists.\n") == 8
    assert ended.stderr.count("Runner connect error: Error: Conflict. Retrying") == 1


@pytest.mark.parametrize("scenario", ["session_conflict_recovers", "network_error"])
def test_a_session_that_recovers_says_so(stage: Stage, scenario: str) -> None:
    double = stage.ready({"scenario": scenario})
    process = stage.listener(double)
    await_truth(double, "listening")
    double.kill()
    stdout, stderr = process.communicate(timeout=10)
    assert "Runner reconnected.\nCurrent runner version" in unstamped(stdout)
    assert stderr.count("Runner connect error: ") == 1


def test_poll_errors_pass_without_a_word(stage: Stage) -> None:
    double = stage.ready({"scenario": "poll_errors"})
    process = stage.listener(double)
    double.push_job({"name": "late"})
    stdout, stderr = process.communicate(timeout=10)
    assert "reconnected" not in stdout
    assert process.returncode == 0


def test_a_crash_loop_goes_on(stage: Stage) -> None:
    double = stage.ready({"scenario": "crash_loop"}, scale=0.0002)
    process = stage.start(double, "run.sh")
    await_truth(double, "listener_exit", times=3)
    double.kill()
    stdout, stderr = process.communicate(timeout=10)
    assert stdout.count("retryable error, re-launch runner in 5 seconds.\nRestart") >= 2
    assert "An error occurred: " in stderr
    assert {record["code"] for record in double.truth("listener_exit")} == {2}


@pytest.mark.parametrize("flag", [True, False])
def test_an_update_ends_in_a_restart(stage: Stage, flag: bool) -> None:
    double = stage.ready({"scenario": "update", "flag": flag}, {"scenario": "idle"})
    process = stage.start(double, "run.sh")
    await_truth(double, "listening", times=2)
    double.kill()
    stdout, _ = process.communicate(timeout=10)
    assert "Runner update in progress, do not shutdown runner.\n" in stdout
    assert "re-launch runner after successful update\n" in stdout
    assert ("Update finished successfully.\n" in stdout) is flag
    assert ("Current runner version: '2.337.0'" in stdout) is flag
    assert (double.root / "bin").is_symlink() is flag
    assert double.truth("listener_exit")[0]["code"] == 4


@pytest.mark.parametrize(("value", "code"), [("1", 7), ("true", 0)])
def test_a_deprecated_version_can_exit_with_code_7(
    stage: Stage, value: str, code: int
) -> None:
    double = stage.ready({"scenario": "deprecated"})
    ended = run(double, "run.sh", **{DEPRECATED: value})
    assert ended.returncode == code
    assert double.truth("listener_exit")[0]["code"] == 7


def test_the_result_can_be_an_exit_code(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "result": "Failed"})
    name = "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED"
    ended = run(double, "run.sh", **{name: "1"})
    assert "Exiting with unknown error code: 102\n" in ended.stdout
    assert ended.returncode == 0


def test_run_sh_without_configuration_or_binary_ends_with_0(stage: Stage) -> None:
    double = stage.lay_out()
    ended = run(double, "run.sh")
    assert "An error occurred: Not configured. Run config" in ended.stderr
    (double.root / "bin" / "Runner.Listener").chmod(0o644)
    assert "unknown error code: 126\n" in run(double, "run.sh").stdout
    (double.root / "bin" / "Runner.Listener").unlink()
    ended = run(double, "run.sh")
    assert (ended.returncode, "error code: 127\n" in ended.stdout) == (0, True)
    if os.getuid() == 0:
        ended = run(double, "run.sh", RUNNER_ALLOW_RUNASROOT="")
        assert (
            ended.stdout == "Must not run interactively with sudo\nExiting runner...\n"
        )


def test_run_sh_killed_by_sigterm_orphans_its_listener(stage: Stage) -> None:
    double = stage.ready({"scenario": "idle"})
    process = stage.start(double, "run.sh")
    listener = await_truth(double, "listening")["pid"]
    process.terminate()
    assert process.wait(10) == -15
    assert listener in double.pids()


def test_a_trapping_run_sh_passes_the_signal_on(stage: Stage) -> None:
    double = stage.ready({"scenario": "idle"})
    process = stage.start(double, "run.sh", RUNNER_MANUALLY_TRAP_SIG="1")
    await_truth(double, "listening")
    process.terminate()
    stdout, _ = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "Exiting runner...\n" in stdout and "Exiting...\n" in stdout
