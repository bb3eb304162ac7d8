"""The double's Listener and Worker: how they end, and what outlives them.

What each of the scenarios 10 to 33 must show is written here as seen from outside.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from tests.cases import slow_except
from tests.runner_double.stage import (
    Stage,
    await_truth,
    configured_files,
    stage,
    unstamped,
)
from tests.support import eventually

pytestmark = pytest.mark.integration

__all__ = ["stage"]
ALL = {".runner", ".credentials", ".credentials_rsaparams"}
STOPPED = "Runner listener exit with 0 return code, stop the service, no retry needed."
TERMINATED = "exit with terminated error, stop the service, no retry needed."
CLEANED = "√ Removed .credentials\n√ Removed .runner\n"


#: Ephemeral runs that end by themselves under run.sh: what the plan says, what must be
#: in stdout and stderr, the Listener's code, and whether the configuration is left.
ENDINGS: dict[str, tuple[dict[str, Any], str, str, int, bool]] = {
    "success": (
        {"scenario": "job"},
        f"Running job: build\nJob build completed with result: Succeeded\n{CLEANED}"
        f"{STOPPED}\nExiting runner...\n",
        "",
        0,
        False,
    ),
    "failure": (
        {"scenario": "job", "result": "Failed"},
        f"Job build completed with result: Failed\n{CLEANED}",
        "",
        0,
        False,
    ),
    "server cancel": (
        {"scenario": "server_cancel"},
        "result: Canceled\n",
        "",
        0,
        False,
    ),
    "cancel that has to kill": (
        {"scenario": "job_cancelled_hard"},
        "result: Canceled\n",
        "",
        0,
        False,
    ),
    "listener killed": (
        {"scenario": "listener_killed"},
        "Running job: build\nExiting with unknown error code: 137\nExiting runner...\n",
        "run-helper.sh: line 36: ",
        137,
        True,
    ),
    "worker killed": (
        {"scenario": "worker_killed"},
        f"Job build completed with result: Failed\n{CLEANED}",
        "",
        0,
        False,
    ),
    "session conflict": (
        {"scenario": "session_conflict"},
        "exit with Session Conflict error",
        "A session for this runner already exists.\nStop retry on"
        " SessionConflictException after retried for 240 seconds.\n"
        "Failed to create session. Error: Conflict\n",
        5,
        True,
    ),
    "deprecated": (
        {"scenario": "deprecated"},
        f"Listening for Jobs\nRunner listener {TERMINATED}",
        "An error occurred: Runner version v2.336.0 is deprecated and cannot receive",
        1,
        True,
    ),
    "deleted at start": (
        {"scenario": "registration_deleted"},
        TERMINATED,
        "The runner registration has been deleted from the server",
        1,
        True,
    ),
    "deleted while idle": (
        {"scenario": "deleted_while_idle"},
        f"Listening for Jobs\n{CLEANED}{STOPPED}",
        "The runner no longer exists on the server. Cleaning up",
        0,
        False,
    ),
    "clock": (
        {"scenario": "clock_skew"},
        TERMINATED,
        "Stopped retrying OAuth",
        1,
        True,
    ),
    "unknown": (
        {"scenario": "runner_unknown"},
        TERMINATED,
        "no longer exists",
        1,
        True,
    ),
    "401": ({"scenario": "not_authorised"}, TERMINATED, "not authorized", 1, True),
    "work": ({"scenario": "no_work_folder"}, TERMINATED, "work directory '/", 1, True),
    "job lost": (
        {"scenario": "job_lost"},
        f"Running job: build\n{CLEANED}{STOPPED}",
        "",
        0,
        False,
    ),
    "set-up failed": ({"scenario": "setup_failed"}, "result: Failed\n", "", 0, False),
    "abandoned": ({"scenario": "abandoned"}, "result: Abandoned\n", "", 0, False),
    "token revoked": (
        {"scenario": "token_revoked"},
        f"Listening for Jobs\n{STOPPED}\n",
        "",
        0,
        True,
    ),
    "odd code": (
        {"scenario": "exit", "exit_code": 42},
        "Exiting with unknown error code: 42\nExiting runner...\n",
        "",
        42,
        True,
    ),
}


@pytest.mark.parametrize(
    "name",
    slow_except(ENDINGS, "failure", "listener killed", "session conflict", "clock"),
)
def test_run_sh_ends_with_0_whatever_the_listener_says(stage: Stage, name: str) -> None:
    entry, output, errors, code, left = ENDINGS[name]
    double = stage.ready(entry)
    process = stage.start(double, "run.sh")
    eventually(lambda: process.poll() is not None, 20, "the end of run.sh")
    if name == "listener killed":
        double.kill()  # the Worker and the step hold nothing, but live on
    stdout, stderr = process.communicate(timeout=10)
    assert output in unstamped(stdout)
    assert errors in stderr and (errors or not stderr)
    assert process.returncode == 0
    ends = [record["code"] for record in double.truth("listener_exit")]
    assert ends == ([] if code == 137 else [code])
    assert configured_files(double) == (ALL if left else set())


def test_an_idle_listener_says_it_listens_and_then_nothing(stage: Stage) -> None:
    double = stage.ready({"scenario": "idle"})
    process = stage.listener(double)
    await_truth(double, "listening")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=10)
    assert unstamped(stdout) == (
        "\n√ Connected to GitHub\n\nCurrent runner version: '2.336.0'\n"
        "Listening for Jobs\nExiting...\n"
    )
    assert (process.returncode, stderr) == (0, "")
    assert configured_files(double) == ALL
    assert list(double.registry()["runners"]) == ["vm-1"]


@pytest.mark.parametrize("code", [143, 0])
def test_sigterm_ends_an_idle_listener_without_a_word(stage: Stage, code: int) -> None:
    double = stage.ready({"scenario": "idle", "term_code": code})
    process = stage.listener(double)
    await_truth(double, "listening")
    process.terminate()
    stdout, _ = process.communicate(timeout=10)
    assert process.returncode == code
    assert "Exiting..." not in stdout


def test_sigint_cancels_the_job_and_skips_the_completed_hook(stage: Stage) -> None:
    steps = [{"seconds": 600}, {"condition": "always()"}]
    double = stage.ready({"scenario": "job", "steps": steps})
    hook = double.root / "hook.sh"
    hook.write_text("exit 0\n")
    process = stage.listener(
        double,
        ACTIONS_RUNNER_HOOK_JOB_STARTED=str(hook),
        ACTIONS_RUNNER_HOOK_JOB_COMPLETED=str(hook),
    )
    await_truth(double, "step_start")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=10)
    assert unstamped(stdout).endswith(
        "Exiting...\nJob build completed with result: Canceled\n"
    )
    assert process.returncode == 0
    assert [record["which"] for record in double.truth("hook")] == ["started"]
    assert double.truth("reported")[0]["result"] == "Failed"
    assert len(double.truth("step_skipped")) == 1
    assert "has received a shutdown signal" in double.log("job")
    assert configured_files(double) == ALL


def test_a_deaf_step_is_killed_and_a_slow_one_waited_for(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "hold": True, "ignores": ["INT", "TERM"]})
    double.release_job()
    process = stage.listener(double)
    await_truth(double, "step_start")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert double.truth("step_exit")[0]["code"] == 137


def test_sigterm_leaves_a_busy_worker_behind_after_its_limit(stage: Stage) -> None:
    job = {"scenario": "job", "hold_step": True, "ignores": ["INT", "TERM"]}
    double = stage.ready(job, scale=0.02)
    process = stage.listener(double)
    await_truth(double, "step_start")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert await_truth(double, "reported")["result"] == "Failed"


def test_a_listener_that_ignores_signals_dies_of_sigkill(stage: Stage) -> None:
    double = stage.ready({"scenario": "ignores_signals"})
    process = stage.listener(double)
    await_truth(double, "listening")
    process.send_signal(signal.SIGINT)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL


def test_an_ignored_sigint_stays_ignored(stage: Stage) -> None:
    double = stage.ready({"scenario": "idle"})
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = stage.listener(double)
    finally:
        signal.signal(signal.SIGINT, before)
    await_truth(double, "listening")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert double.truth("signal") == []


def test_worker_and_step_outlive_the_listener_and_report(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "hold": True})
    double.release_job()
    process = stage.listener(double)
    worker = await_truth(double, "worker_start")["pid"]
    await_truth(double, "step_start")
    process.kill()
    process.wait(10)
    assert worker in double.pids()
    double.finish_step()
    assert await_truth(double, "worker_exit")["code"] == 100
    assert double.truth("reported")[0]["result"] == "Succeeded"
    assert double.truth("result") == []


def test_the_step_outlives_a_killed_worker(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "hold": True})
    double.release_job()
    process = stage.listener(double)
    step = await_truth(double, "step_start")["pid"]
    os.kill(double.truth("worker_start")[0]["pid"], signal.SIGKILL)
    stdout, _ = process.communicate(timeout=10)
    assert "Job build completed with result: Failed\n" in stdout
    assert step in double.pids()
    assert ". Code: 137\n" in double.log("Runner")
    assert list((double.root / "_diag" / "pages").iterdir())
