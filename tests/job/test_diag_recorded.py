"""Runs as the official runner was seen to show them: lines, their order, the verdict.

The shapes are those of release 2.336.0, in both of its flows; `worker` and `listener`
are how the two processes end. Each run has the Worker's exit status and, where
that makes a difference, without it.
"""

from __future__ import annotations

import pytest

from miglet.job.observer import CONFIRM_SECONDS, RESULT_SECONDS, STATUS_SECONDS
from miglet.messages.facts import ListenerDied, RunnerExited
from tests.job.test_observer import FakeWorker, Play, append, stamped

JOB = "c9c491bc-23cc-47cf-9176-f24236d218f7"
REPORTED = [("Worker", "JobRunner", "Raising job completed against run service")]
REMOVED = ["√ Removed .credentials", "√ Removed .runner"]
CANCELLED = ("Worker", "Worker", "Cancellation/Shutdown message received.")
SHUT_DOWN = ("Worker", "HostContext", "Runner will be shutdown for UserCancelled")
GONE = "The runner no longer exists on the server. Cleaning up local configuration."


def result_of_steps(result):
    return (
        "Worker",
        "JobRunner",
        f"Job result after all job steps finish: {result}",
    )


def finished(code):
    return ("Runner", "JobDispatcher", f"Worker finished for job {JOB}. Code: {code}")


def printed(result, name="build"):
    """What follows the Worker's end: the Listener's log, then its output."""
    line = f"finish job request for job {JOB} with result: {result}"
    return [
        ("Runner", "JobDispatcher", line),
        f"!Job {name} completed with result: {result}",
    ]


#: name: before the Worker's end, its status, after it, the Listener's status, verdict.
RUNS = {
    "success": (
        [result_of_steps("Succeeded"), *REPORTED],
        100,
        [finished(100), *printed("Succeeded"), *REMOVED],
        0,
        ("succeeded", "success"),
    ),
    "failure": (
        [result_of_steps("Failed"), *REPORTED],
        102,
        [finished(102), *printed("Failed"), *REMOVED],
        0,
        ("failed", "failure"),
    ),
    "cancelled by the server": (
        [CANCELLED, result_of_steps("Canceled"), *REPORTED],
        103,
        [*printed("Canceled"), *REMOVED],
        0,
        ("cancelled", "cancelled"),
    ),
    "SIGINT to the Listener": (
        ["Exiting...", CANCELLED, SHUT_DOWN, result_of_steps("Failed"), *REPORTED],
        102,
        printed("Canceled"),
        0,
        ("failed", "shutdown"),
    ),
    "the registration goes": (
        [GONE, CANCELLED, result_of_steps("Canceled"), *REPORTED],
        103,
        [*printed("Canceled"), *REMOVED],
        0,
        ("cancelled", "registration_gone"),
    ),
    "the lock cannot be renewed": (
        [CANCELLED, result_of_steps("Canceled"), *REPORTED],
        103,
        [*printed("Abandoned"), *REMOVED],
        0,
        ("abandoned", "lock_lost"),
    ),
    "the completion is refused": (
        [result_of_steps("Succeeded"), *REPORTED],
        1,
        [finished(1), *printed("Failed"), *REMOVED],
        0,
        ("failed", "result_not_reported"),
    ),
    "the Worker is killed": (
        [],
        -9,
        [finished(137), *printed("Failed"), *REMOVED],
        0,
        ("failed", "worker_crash"),
    ),
    "a name of several lines": (
        [result_of_steps("Failed"), *REPORTED],
        102,
        [
            finished(102),
            "!Job a",
            "b",
            "2026-11-28 14:28:01Z: Job x completed with result: Succeeded completed"
            " with result: Failed",
            *REMOVED,
        ],
        0,
        ("failed", "failure"),
    ),
}


def show(play, lines):
    """Write what the runner wrote; `!` stands for a line with a time stamp."""
    for line in lines:
        if isinstance(line, tuple):
            play.logs(*line)
        elif line.startswith("!"):
            append(play.run.output_path, stamped(line[1:]))
        else:
            append(play.run.output_path, f"{line}\n")


def begin(play, name="build"):
    """Everything until the first step runs."""
    show(play, ["", "√ Connected to GitHub", "", "Current runner version: '2.336.0'"])
    show(play, ["!Listening for Jobs"])
    play.look()
    received = f"Job request 0 for plan ba534277 job {JOB} received."
    show(play, [("Runner", "JobDispatcher", received), f"!Running job: {name}"])
    play.run.worker_process = FakeWorker()
    show(
        play,
        [
            ("Worker", "Worker", "Message received."),
            ("Worker", "StepsRunner", "Processing step: DisplayName='Set up runner'"),
        ],
    )
    play.look(0.3)
    return play.run.worker_process


@pytest.mark.parametrize("known", [True, False], ids=["status", "no status"])
@pytest.mark.parametrize("run", RUNS)
def test_a_recorded_run_has_its_verdict(tmp_path, run, known):
    before, status, after, listener, expected = RUNS[run]
    play = Play(tmp_path)
    worker = begin(
        play,
        "a\nb\n2026-11-28 14:28:01Z: Job x completed with result: Succeeded"
        if run == "a name of several lines"
        else "build",
    )
    show(play, before)
    play.look(2.0)
    assert play.end is None
    worker.end(*((None, -status) if status < 0 else (status,)), known=known)
    play.look(0.01)
    show(play, after)
    play.look(0.02)
    play.look(STATUS_SECONDS)
    play.run.end(listener)
    play.look(0.07)
    play.look(RESULT_SECONDS + CONFIRM_SECONDS)
    assert (play.end.result, play.end.cause) == expected
    assert len(play.of(RunnerExited)) == 1
    succeeded = expected[0] == "succeeded"
    killed = 128 - status if status < 0 else status
    assert play.end.exit_code == (0 if succeeded else killed if known else None)
    play.watch.close()


def test_a_listener_that_is_killed_leaves_the_result_to_its_worker(tmp_path):
    play = Play(tmp_path)
    worker = begin(play)
    play.run.end(None, 9)
    play.look(3.0)
    assert play.of(ListenerDied)
    show(play, [result_of_steps("Succeeded"), *REPORTED])
    show(play, [("Worker", "Worker", "Job completed.")])
    worker.end(100)
    play.look(41.0)
    assert (play.end.result, play.end.exit_code) == ("succeeded", 0)
    play.watch.close()
