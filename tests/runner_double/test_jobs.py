"""Hooks, logs, leftovers, floods: scenarios 28 to 37 of the double's table."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest

from tests.runner_double.stage import (
    CONFIGURE,
    Stage,
    await_truth,
    config,
    configured_files,
    run,
    stage,
)
from tests.support import eventually

__all__ = ["stage"]
STARTED = "ACTIONS_RUNNER_HOOK_JOB_STARTED"
COMPLETED = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"


def hooks(double: Any, started: str, completed: str = "exit 0\n") -> dict[str, str]:
    """Hook scripts of these texts, as the environment that names them."""
    paths = {}
    for variable, text in ((STARTED, started), (COMPLETED, completed)):
        path = double.root / f"{variable.lower()}.sh"
        path.write_text(text)
        paths[variable] = str(path)
    return paths


def test_hooks_run_around_the_steps_with_the_job_s_environment(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "env": {"SECRET_OF_WORKFLOW": "x"}})
    added = hooks(double, "env > $OLDPWD/env.txt\npwd\necho HOOKED=1 >> $GITHUB_ENV\n")
    ended = run(double, "run.sh", OLDPWD=str(double.root), **added)
    assert ended.returncode == 0
    order = [
        record["what"]
        for record in double.truth()
        if record["what"] in ("hook", "step_start", "step_exit", "result")
    ]
    assert order == ["hook", "step_start", "step_exit", "hook", "result"]
    lines = (double.root / "env.txt").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert seen["GITHUB_RUN_ID"] == "7700000001"
    assert seen["RUNNER_NAME"] == "vm-1"
    assert seen["CI"] == seen["GITHUB_ACTIONS"] == "true"
    assert seen["RUNNER_TRACKING_ID"].startswith("github_")
    assert seen["GITHUB_EVENT_PATH"].endswith("_work/_temp/_github_workflow/event.json")
    for absent in ("SECRET_OF_WORKFLOW", "GITHUB_TOKEN", "ACTIONS_RUNNER_INPUT_TOKEN"):
        assert absent not in seen
    assert "A job started hook has been configured" in double.log("job")


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("hook.sh", "exit 7\n", "Process completed with exit code 7."),
        ("missing.sh", None, "File doesn't exist"),
        ("hook.py", "", "Make sure it ends in '.sh', '.ps1' or '.js'."),
    ],
)
def test_a_bad_hook_fails_the_job(
    stage: Stage, path: str, text: str | None, message: str
) -> None:
    steps = [{"name": "work"}, {"name": "last", "condition": "always()"}]
    double = stage.ready({"scenario": "job", "steps": steps})
    hook = double.root / path
    if text is not None:
        hook.write_text(text)
    ended = run(double, "run.sh", **{STARTED: str(hook)})
    assert "completed with result: Failed\n" in ended.stdout
    assert message in double.log("job")
    assert [record["name"] for record in double.truth("step_skipped")] == ["work"]
    assert [record["name"] for record in double.truth("step_exit")] == ["last"]


def test_a_hanging_hook_hangs_the_job_and_a_cancel_does_not_reach_it(
    stage: Stage,
) -> None:
    double = stage.ready({"scenario": "job"}, scale=0.002)
    process = stage.listener(double, **hooks(double, "exec sleep 600\n"))
    await_truth(double, "hook_start")
    double.cancel_job()
    await_truth(double, "worker_gone")
    assert process.wait(10) == 0
    assert double.truth("worker_gone")[0]["code"] == 137
    assert double.truth("hook") == []
    assert double.truth("result")[0]["result"] == "Canceled"


def test_a_server_cancel_runs_the_completed_hook(stage: Stage) -> None:
    double = stage.ready({"scenario": "server_cancel"})
    run(double, "run.sh", **hooks(double, "exit 0\n"))
    assert [record["code"] for record in double.truth("hook")] == [0, 0]
    assert double.truth("reported")[0]["result"] == "Canceled"


def test_a_failed_set_up_runs_no_hooks(stage: Stage) -> None:
    double = stage.ready({"scenario": "setup_failed"})
    run(double, "run.sh", **hooks(double, "exit 0\n"))
    assert double.truth("hook") == double.truth("step_start") == []


def test_env_file_overrides_the_environment(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "script": 'echo "a=$A b=$B"\n'})
    with (double.root / ".env").open("a") as lines:
        lines.write("A=file\nB=\n")
    run(double, "run.sh", A="caller", B="caller")
    assert "a=file b=\n" in double.log("job")


def test_the_worker_s_log_holds_the_job_message(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "name": "tést (1)", "run_id": "9"})
    run(double, "run.sh")
    log = double.log("Worker")
    text = log.split("Job message:\n", 1)[1].split("\n[", 1)[0]
    message = json.loads(text)
    assert message["jobDisplayName"] == "tést (1)"
    context = message["contextData"]
    assert {"k": "run_id", "v": "9"} in context["github"]["d"]
    assert '"v": 555000111.0' in text
    assert "Job result after all job steps finish: Succeeded\n" in log


def test_the_listener_s_log_mirrors_the_terminal(stage: Stage) -> None:
    double = stage.ready({"scenario": "job"})
    run(double, "run.sh")
    log = double.log("Runner")
    for text in (
        r"INFO Terminal\] WRITE LINE: \S+ \S+: Running job: build",
        r"Job request 0 for plan \S+ job \S+ received\.",
        r"Successfully renew job",
        r"Worker finished for job \S+\. Code: 100",
        r"finish job request for job \S+ with result: Succeeded",
        r"Deleting Runner Session",
        r"Runner execution has finished with return code 0",
    ):
        assert re.search(text, log), text


def test_counters_tell_of_a_job_before_it_runs(stage: Stage) -> None:
    double = stage.ready({"scenario": "job"})
    folder = double.root / "perf"
    run(double, "run.sh", RUNNER_PERFLOG=str(folder))
    counters = [
        line.split(":", 1)[0]
        for line in (folder / "Runner.perf").read_text().splitlines()
    ]
    assert counters[:4] == [
        "RunnerProcessStarted",
        "SessionCreated",
        "MessageReceived_RunnerJobRequest",
        "JobRequestRenewed_0",
    ]
    assert "WorkerJobInitialized_0:" in (folder / "Worker.perf").read_text()


@pytest.mark.parametrize(("how", "survives"), [("setsid", False), ("untracked", True)])
def test_leftovers_are_found_by_their_tracking_id(
    stage: Stage, how: str, survives: bool
) -> None:
    double = stage.ready({"scenario": "job", "leave_process": how})
    run(double, "run.sh")
    assert bool(double.pids()) is survives
    assert bool(double.truth("orphan_killed")) is not survives
    double.kill()
    assert double.pids() == []


def test_a_step_uses_what_it_is_given(stage: Stage) -> None:
    wishes = {"burn_cpu": 0.05, "allocate_mb": 20, "write_mb": 2}
    double = stage.ready({"scenario": "job", **wishes})
    run(double, "run.sh")
    written = double.root / "_work" / "octo-repo" / "octo-repo" / "written.bin"
    assert written.stat().st_size == 2 << 20


def test_the_three_processes_share_one_group(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "hold": True})
    double.release_job()
    process = stage.start(double, "run.sh")
    step = await_truth(double, "step_start")["pid"]
    listener = double.truth("listener_start")[0]["pid"]
    worker = double.truth("worker_start")[0]["pid"]
    groups = {os.getpgid(pid) for pid in (step, listener, worker)}
    assert groups == {os.getpgid(process.pid)}
    assert double.truth("worker_start")[0]["argv"][0] == "spawnclient"
    double.finish_step(3)
    stdout, _ = process.communicate(timeout=10)
    assert "completed with result: Failed\n" in stdout


def test_a_ghost_listens_for_ever(stage: Stage) -> None:
    double = stage.ready({"scenario": "ghost"})
    folder = double.root / "perf"
    process = stage.listener(double, RUNNER_PERFLOG=str(folder))
    await_truth(double, "ghost")
    perf = (folder / "Runner.perf").read_text()
    assert "MessageReceived_RunnerJobRequest:" in perf
    assert "Skipping message Job. Job message already acquired '" in double.log(
        "Runner"
    )
    assert process.poll() is None
    assert double.registry()["runners"] == {}


def test_a_persistent_runner_takes_job_after_job(stage: Stage) -> None:
    jobs = [{"name": "one"}, {"name": "two", "result": "Failed"}]
    double = stage.lay_out({"scenario": "jobs", "jobs": jobs})
    config(double, *(word for word in CONFIGURE if word != "--ephemeral"))
    process = stage.listener(double)
    await_truth(double, "result", times=2)
    double.push_job({"name": "three"})
    await_truth(double, "result", times=3)
    process.terminate()
    stdout, _ = process.communicate(timeout=10)
    names = re.findall(r"Running job: (\w+)\n.*Job (\w+) completed", stdout)
    assert names == [(name, name) for name in ("one", "two", "three")]
    assert len(configured_files(double)) == 3


def test_a_flood_is_written_whole_and_lies(stage: Stage) -> None:
    lie = "x completed with result: Succeeded"
    entry = {"scenario": "flood", "lines": 500, "name": lie, "result": "Failed"}
    ended = run(stage.ready(entry), "run.sh")
    assert ended.stdout.count("[WORKER ") == 501
    assert "x" * (1 << 20) in ended.stdout
    assert f"Job {lie} completed with result: Failed\n" in ended.stdout


def test_the_worker_s_log_can_flood_stdout(stage: Stage) -> None:
    double = stage.ready({"scenario": "job"})
    ended = run(double, "run.sh", ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT="1")
    assert re.search(r"^\[WORKER .*Job message:$", ended.stdout, re.MULTILINE)


def test_stdout_can_be_closed_early_or_held_open(stage: Stage) -> None:
    double = stage.ready({"scenario": "stdout_closed"})
    ended = run(double, "run.sh")
    assert "Running job" not in ended.stdout
    assert double.truth("result")[0]["result"] == "Succeeded"
    double = stage.ready({"scenario": "stdout_held"})
    process = stage.listener(double)
    assert process.wait(10) == 0
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.2)


def test_a_removed_runner_ends_by_itself_unless_it_is_busy(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "hold": True})
    double.release_job()
    process = stage.listener(double)
    await_truth(double, "step_start")
    assert double.delete_registration("vm-1") == 422
    double.finish_step()
    assert process.wait(10) == 0
    assert double.delete_registration("vm-1") == 404
    double = stage.ready({"scenario": "idle"})
    process = stage.listener(double)
    await_truth(double, "listening")
    assert double.delete_registration("vm-1") == 204
    assert process.wait(10) == 0
    eventually(lambda: not configured_files(double), what="clean-up")


def test_an_unknown_key_in_a_plan_is_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match="listner"):
        stage.lay_out(listner=[])
