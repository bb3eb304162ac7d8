"""The double is held against what the official runner did: the table in `recorded`."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cases import slow_except
from tests.runner_double import recorded
from tests.runner_double.double import Double
from tests.runner_double.plan import FAST
from tests.runner_double.recorded import SCENARIOS, Recorded
from tests.runner_double.stage import (
    ENVIRONMENT,
    Stage,
    await_truth,
    configured_files,
    stage,
)
from tests.runner_double.times import BROKER, DELETE_SESSION, EXIT, PIPELINES, Times
from tests.support import eventually

__all__ = ["stage"]
HOOK = 'env -0 > "{folder}/hook-{name}.env"\n'
#: What bash adds, and what the runner was started with.
INHERITED = {
    *ENVIRONMENT,
    *("PWD", "OLDPWD", "SHLVL", "_"),
    # Python's own, where the environment names no locale.
    "LC_CTYPE",
    *("ACTIONS_RUNNER_HOOK_JOB_STARTED", "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"),
    "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE",
}


class Play:
    """One scenario, played by the double to its end."""

    def __init__(self, stage: Stage, scenario: Recorded) -> None:
        self.scenario = scenario
        self.double = stage.ready(scenario.listener, scale=FAST, **scenario.plan)
        self.configuring = self.double.calls()
        self._process = stage.listener(self.double, **self._environment())
        self._interrupt()
        self.exit = self._wait()
        if self.exit is None or scenario.leaves_step:
            self.leftovers = self.double.pids()
            self.double.kill()
        stdout, self._stderr = self._process.communicate(timeout=10)
        self.output = stdout.splitlines()
        self.errors = self._stderr.splitlines()

    @property
    def calls(self) -> tuple[str, ...]:
        """What the Listener and its Worker have asked of the service."""
        return tuple(self.double.calls()[len(self.configuring) :])

    @property
    def log(self) -> str:
        """The Listener's log; config.sh may have begun it within the same second."""
        text = self.double.log("Runner")
        return text[text.rindex("[", 0, text.rindex("Listener] Version: ")) :]

    def hook_environment(self, name: str) -> dict[str, str]:
        """The variables that a hook had."""
        text = (self.double.root / f"hook-{name}.env").read_text()
        return dict(line.split("=", 1) for line in text.split("\0") if line)

    def _environment(self) -> dict[str, str]:
        added = {"ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1"}
        for name in ("started", "completed"):
            path = self.double.root / f"hook-{name}.sh"
            path.write_text(HOOK.format(folder=self.double.root, name=name))
            added[f"ACTIONS_RUNNER_HOOK_JOB_{name.upper()}"] = str(path)
        return added

    def _interrupt(self) -> None:
        moments = {"idle": "listening", "busy": "step_start"}
        if self.scenario.interrupted:
            await_truth(self.double, moments[self.scenario.interrupted])
            self._process.send_signal(signal.SIGINT)

    def _wait(self) -> int | None:
        """The Listener's status, when everybody who ends has ended."""
        if self.scenario.listener_exit is None:
            eventually(
                lambda: len(self.calls) >= len(self.scenario.calls), what="the calls"
            )
            assert self._process.poll() is None
            return None
        status = self._process.wait(30)
        if self.scenario.reported:
            await_truth(self.double, "reported")
            eventually(self._worker_has_ended, what="the Worker's end")
        return status

    def _worker_has_ended(self) -> bool:
        return not any(
            psutil.pid_exists(each["pid"]) for each in self.double.truth("worker_start")
        )


def assert_same(lines: list[str], patterns: tuple[str, ...]) -> None:
    """Every line is what is expected in its place, and there are no others."""
    found = [
        re.fullmatch(pattern, line) is not None
        for pattern, line in zip(patterns, lines, strict=False)
    ]
    assert all(found) and len(lines) == len(patterns), "\n".join(lines)


def assert_in_order(text: str, patterns: tuple[str, ...]) -> None:
    """The text has lines for all patterns, in their order."""
    lines = iter(text.splitlines())
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), f"{pattern}\n{text}"


#: One of each kind: an end, a cancellation, a crash, and the older flow.
USUAL = ("success", "cancel", "sigint-busy", "worker-killed", "gone-while-busy")
USUAL += ("masked-brace", "v1-failure", "v1-listener-killed")


@pytest.fixture(scope="module", params=slow_except(SCENARIOS, *USUAL))
def play(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Play]:
    """Each scenario, played once for all that is checked of it."""
    opened = Stage(tmp_path_factory.mktemp("recorded"))
    try:
        yield Play(opened, SCENARIOS[request.param])
    finally:
        opened.close()


def test_the_double_does_what_was_recorded(play: Play) -> None:
    scenario = play.scenario
    assert play.exit == scenario.listener_exit
    assert_same(play.output, scenario.output)
    assert_same(play.errors, scenario.errors)
    worker_log = play.double.log("Worker")
    assert_in_order(play.log, scenario.runner_log)
    assert_in_order(worker_log, scenario.worker_log)
    lines = (play.log + worker_log).splitlines()
    for pattern in scenario.absent:
        assert not any(re.fullmatch(pattern, line) for line in lines), pattern
    if scenario.listener_exit is None:
        assert play.calls[: len(scenario.calls)] == scenario.calls
    else:
        assert without_renewals(play.calls) == without_renewals(scenario.calls)
    assert configured_files(play.double) == scenario.left


def test_the_service_receives_of_the_job_what_was_recorded(play: Play) -> None:
    scenario = play.scenario
    reported = [(each["result"], each["by"]) for each in play.double.truth("reported")]
    assert reported == ([scenario.reported] if scenario.reported else [])
    known = set() if scenario.worker_exit is None else {scenario.worker_exit}
    assert worker_exits(play.double) == known
    survivors = play.leftovers if scenario.leaves_step else play.double.pids()
    assert bool(survivors) is scenario.leaves_step


def test_hooks_run_with_the_recorded_environment(play: Play) -> None:
    hooks = tuple(each["which"] for each in play.double.truth("hook"))
    assert hooks == play.scenario.hooks
    for hook in hooks:
        wanted = set(recorded.HOOK_ENVIRONMENT)
        if hook == "completed":
            wanted |= recorded.COMPLETED_ENVIRONMENT
        names = set(play.hook_environment(hook)) - INHERITED
        assert names - recorded.CONTEXT_ENVIRONMENT == wanted


def without_renewals(calls: tuple[str, ...]) -> list[str]:
    """The calls without the renewals that only the scaled time has added."""
    return [
        call
        for number, call in enumerate(calls)
        if call != "renew" or "renew" not in calls[:number]
    ]


def worker_exits(double: Double) -> set[int]:
    """How the Worker ended: as its Listener saw it, or as it says itself."""
    seen = double.truth("worker_gone") or double.truth("worker_exit")
    return {each["code"] for each in seen}


def test_listener_and_worker_are_parent_and_child_of_their_names(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "hold_step": True})
    process = stage.listener(double)
    await_truth(double, "step_start")
    listener = psutil.Process(process.pid)
    (worker,) = listener.children()
    assert worker.pid == double.truth("worker_start")[0]["pid"]
    for each, name in ((listener, "Runner.Listener"), (worker, "Runner.Worker")):
        assert Path(f"/proc/{each.pid}/comm").read_text() == f"{name}\n"
    assert re.search(
        r"bin/Runner\.Worker spawnclient \d+ \d+$", " ".join(worker.cmdline())
    )
    (step,) = worker.children()
    assert step.name() == "bash"
    assert Path(f"/proc/{step.pid}/oom_score_adj").read_text() == "500\n"


@pytest.mark.parametrize(
    ("stage_of_hang", "log"),
    [
        ("start", ""),
        ("channel", "Waiting to receive the job message from the channel."),
    ],
)
def test_a_worker_that_never_begins_is_renewed_until_it_is_killed(
    stage: Stage, stage_of_hang: str, log: str
) -> None:
    double = stage.ready({"scenario": "worker_hangs", "hangs": stage_of_hang})
    process = stage.listener(double)
    worker = await_truth(double, "worker_hangs")["pid"]
    eventually(lambda: double.calls().count("renew") > 2, what="renewals")
    assert process.poll() is None
    assert log in double.log("Worker") and "Job message" not in double.log("Worker")
    psutil.Process(worker).kill()
    stdout, _ = process.communicate(timeout=10)
    assert "Job build completed with result: Failed\n" in stdout
    assert double.truth("reported")[0]["by"] == "listener"


def test_a_result_that_the_service_refuses_is_tried_again_and_again(
    stage: Stage,
) -> None:
    double = stage.ready({"scenario": "completion_fails"})
    process = stage.listener(double)
    stdout, _ = process.communicate(timeout=20)
    assert double.truth("worker_gone")[0]["code"] == 1
    began = double.truth("job_result")[0]["mono"]
    assert double.truth("worker_gone")[0]["mono"] - began >= 0.002 * 270
    assert "Job build completed with result: Failed\n" in stdout
    assert [each["by"] for each in double.truth("reported")] == ["listener"]
    assert "Job result after all job steps finish: Succeeded\n" in double.log("Worker")


def test_a_wedged_worker_has_its_job_s_result_in_its_log(stage: Stage) -> None:
    double = stage.ready({"scenario": "completion_hangs"})
    process = stage.listener(double)
    worker = await_truth(double, "completion_hangs")["pid"]
    log = double.log("Worker")
    assert "Job result after all job steps finish: Succeeded\n" in log
    assert "Raising job completed against run service\n" in log
    assert process.poll() is None and not double.truth("reported")
    psutil.Process(worker).kill()
    stdout, _ = process.communicate(timeout=10)
    assert "Job build completed with result: Failed\n" in stdout


def test_renewals_that_work_again_let_the_job_run_as_usual(stage: Stage) -> None:
    double = stage.ready({"scenario": "job", "first_renewal_fails": 0.3})
    stdout, _ = stage.listener(double).communicate(timeout=10)
    assert "Job build completed with result: Succeeded\n" in stdout
    assert double.calls().count("renew") > 5


def test_a_lock_that_cannot_be_renewed_any_more_abandons_the_job(
    stage: Stage,
) -> None:
    double = stage.ready({"scenario": "abandoned"}, scale=0.01)
    stdout, _ = stage.listener(double).communicate(timeout=20)
    assert "Job build completed with result: Abandoned\n" in stdout
    renewals = [each for each in double.truth("call") if each["name"] == "renew"]
    assert [each.get("status") for each in renewals] == [None, *5 * (500,)]
    assert "Catch exception during renew runner job " in double.log("Runner")
    took = moment(double, "result") - moment(double, "running_job")
    assert took >= 110 * 0.01
    assert double.truth("reported")[0]["result"] == "Canceled"


def test_an_acquisition_without_an_answer_is_waited_for_in_silence(
    stage: Stage,
) -> None:
    double = stage.ready({"scenario": "acquire_hangs"})
    process = stage.listener(double)
    eventually(lambda: "acquire" in double.calls(), what="the acquisition")
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=10)
    assert "Running job" not in stdout and stdout.endswith("Exiting...\n")


@pytest.mark.parametrize(
    ("secret", "lines"),
    [
        ("1", [r'    "changeId": \*\*\*,', r'          "v": 555000\*\*\*\.0']),
        ("null", [r'    "inputs": \*\*\*,', r'    "matrix": \*\*\*,']),
        ('"v": 555', [r"          \*\*\*000111\.0"]),
    ],
)
def test_secrets_are_masked_within_the_syntax_of_the_message(
    stage: Stage, secret: str, lines: list[str]
) -> None:
    double = stage.ready({"scenario": "job", "secrets": [secret]})
    stage.listener(double).communicate(timeout=10)
    assert_in_order(double.log("Worker"), tuple(lines))


# The times.


@pytest.mark.parametrize(
    ("times", "ranges"),
    [(BROKER, recorded.BROKER_TIMES), (PIPELINES, recorded.PIPELINES_TIMES)],
)
def test_the_double_s_times_are_the_recorded_ones(
    times: Times, ranges: dict[str, recorded.Range]
) -> None:
    durations = times._asdict()
    for name, (shortest, longest) in ranges.items():
        # The log and the message of a Worker are counted from its start, which comes
        # some milliseconds after the acquisition.
        margin = 0.02 if name in ("worker_log", "job_message") else 0.0
        assert shortest <= durations[name] + margin <= longest, name


def test_the_listener_outlives_its_result_as_long_as_was_recorded() -> None:
    shortest, longest = recorded.LISTENER_END
    assert shortest <= DELETE_SESSION + EXIT <= longest


#: What happens, after what, and how long after that it comes at the earliest.
GAPS = [
    ("worker_gone", "result", recorded.RESULT_PRINTED[0]),
    ("message_received", "running_job", recorded.BROKER_TIMES["acquire"][0]),
    ("running_job", "job_message", recorded.BROKER_TIMES["job_message"][0]),
    ("step_exit", "reported", recorded.BROKER_TIMES["complete"][0]),
    ("result", "listener_exit", recorded.LISTENER_END[0]),
]


def test_unscaled_a_job_takes_its_time(stage: Stage) -> None:
    double = stage.ready({"scenario": "job"}, scale=1.0)
    began = time.monotonic()
    stage.listener(double).communicate(timeout=30)
    listening = recorded.BROKER_TIMES["listening"]
    assert moment(double, "listening") - began >= listening[0]
    for begins, ends, least in GAPS:
        assert moment(double, ends) - moment(double, begins) >= least, (begins, ends)


def test_a_scaled_interruption_takes_its_share(stage: Stage) -> None:
    scale = 0.05
    double = stage.ready(recorded.SCENARIOS["sigint-busy"].listener, scale=scale)
    process = stage.listener(double)
    await_truth(double, "step_start")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    took = moment(double, "result") - moment(double, "signal")
    assert took >= recorded.INTERRUPTED_BUSY[0] * scale


def moment(double: Double, what: str) -> float:
    """When something happened, on the monotonic clock."""
    found: list[dict[str, Any]] = double.truth(what)
    return found[0]["mono"]
