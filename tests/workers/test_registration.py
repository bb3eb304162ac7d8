"""How a runner is registered and launched, step by step."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest

from miglet.errors import ControllerUnreachable, Refused
from miglet.job import hooks
from miglet.job.hooks import HOOK_VARIABLES
from miglet.messages.codec import encode
from miglet.messages.facts import (
    ControllerAnswered,
    ControllerFailed,
    FaultNoted,
    RunnerLaunched,
    TokenSpent,
)
from miglet.messages.orders import ProvideRunner
from miglet.redaction import forget_secrets, redact
from miglet.runner.installation import (
    REGISTRATION_FILES,
    FolderUnusable,
    NotRemovable,
    Problem,
)
from miglet.runner.launcher import LAUNCH_SECONDS, LaunchFailed, LaunchSpec
from miglet.runner.metadata_firewall import LOAD_SECONDS
from miglet.runner.run import RunnerPresent
from miglet.workers import registration, token_request
from miglet.workers.registration import (
    KILL_SECONDS,
    MOST_ATTEMPTS,
    MOST_LAUNCHES,
    MOST_TOKENS,
    RunnerRegistration,
)
from miglet.workers.steps import POLL_SECONDS, GivenUp
from tests.workers.fake_registration import (
    BEGAN,
    NAME,
    SERVER_ERROR,
    URL,
    FakeConfiguration,
    Script,
    Watcher,
    failing,
    faked,
    hanging,
    register,
    registering,
    token,
)

# What config.sh does: see the tables of miglet.runner.registration_errors.
EXPIRED = "Http response code: NotFound from 'POST https://api.github.com'"
UNAUTHORIZED = "Http response code: Unauthorized from 'POST https://api.github.com'"
NO_GROUP = 'Could not find any self-hosted runner group named "ci"'
BAD_REQUEST = "Http response code: BadRequest from 'POST https://api.github.com'"

WITHOUT_CREDENTIALS = (".credentials_rsaparams", ".runner")


@pytest.fixture
def watcher(tmp_path, monkeypatch):
    yield faked(tmp_path, monkeypatch)
    forget_secrets()


# ---- the way to a runner -------------------------------------------------------


def test_a_token_and_config_sh_and_a_launch_make_a_runner(watcher):
    run = watcher.provide()
    kinds = [type(fact) for fact in watcher.queue.facts]
    assert kinds == [ControllerAnswered, TokenSpent, RunnerLaunched]
    (launched,) = watcher.of(RunnerLaunched)
    assert launched.runner == {
        "run_id": run.run_id,
        "name": NAME,
        "pid": 17,
        "start_time": 4711,
        "unit": None,
        "folder": str(watcher.directory / "run"),
        "version": None,
        "agent_id": 7,
        "labels": ["linux", "x64"],
        "runner_group": "ci",
        "runner_url": URL,
        "attempts": 1,
        "began": BEGAN,
    }
    assert watcher.tokens_asked == 1
    assert watcher.backoffs == []


def test_config_sh_gets_what_the_controller_says_before_our_own_settings(watcher):
    watcher.provide()
    (spec,) = watcher.configurations.specs
    options = dict(zip(spec.argv[5::2], spec.argv[6::2], strict=True))
    assert options == {
        "--url": URL,
        "--name": NAME,
        "--labels": "linux,x64",
        "--runnergroup": "ci",
    }


def test_without_labels_of_the_controllers_the_runner_has_our_own(watcher):
    watcher.answers(token(labels=(), runner_group=None))
    watcher.provide()
    (spec,) = watcher.configurations.specs
    assert spec.argv[spec.argv.index("--labels") + 1] == "own-label"
    assert "--runnergroup" not in spec.argv
    (launched,) = watcher.of(RunnerLaunched)
    assert launched.runner["labels"] == ["own-label"]


def test_the_listener_is_started_directly_and_spared_when_memory_is_short(watcher):
    watcher.provide()
    (spec,) = watcher.listeners.specs
    assert spec.argv == (str(watcher.directory / "bin" / "Runner.Listener"), "run")
    assert spec.name == NAME
    assert spec.oom_score_adj == -300


def test_what_takes_long_is_announced_before_it_begins(watcher, monkeypatch):
    announced = []
    for launcher in (watcher.configurations, watcher.listeners):
        start = launcher.start
        monkeypatch.setattr(
            launcher,
            "start",
            lambda spec, start=start: (
                announced.append([*watcher.liveness]) or start(spec)
            ),
        )
    watcher.provide()
    before = [LOAD_SECONDS, LAUNCH_SECONDS]
    assert announced == [before, [*before, LAUNCH_SECONDS]]


def test_a_token_is_reported_as_spent_before_config_sh_has_it(watcher):
    steps = RunnerRegistration(watcher, ProvideRunner(NAME)).run()
    watcher.configured_by(LaunchFailed("no more processes"))
    with pytest.raises(GivenUp):
        watcher.drive(steps)
    (spent,) = watcher.of(TokenSpent)
    assert spent.sha256 == token_request.digest(token())


def test_a_token_is_in_the_environment_of_config_sh_and_nowhere_else(watcher, caplog):
    caplog.set_level(logging.DEBUG)
    watcher.configured_by(
        failing(f"bad token {token().token}"), failing(EXPIRED), registering()
    )
    second = token("AAASECONDTOKEN")
    watcher.answers(token(), second)
    watcher.provide()
    assert watcher.tokens_given == [token().token, token().token, second.token]
    written = b"".join(encode(fact) for fact in watcher.queue.facts).decode()
    argv = [word for spec in watcher.configurations.specs for word in spec.argv]
    (listener,) = watcher.listeners.specs
    everywhere = [written, *argv, repr(listener), str(listener.as_json()), caplog.text]
    everywhere += [repr(spec) for spec in watcher.configurations.specs]
    for secret in (token().token, second.token):
        assert not [each for each in everywhere if secret in each]
        assert secret not in redact(f"ended with {secret}")


def test_config_sh_has_the_runners_proxy_and_nothing_of_our_own_environment(
    watcher, monkeypatch
):
    monkeypatch.setenv("MIGLET_POOL_ID", "pool-1")
    monkeypatch.setenv("https_proxy", "http://not.the.runners:3128")
    proxy = "http://proxy.example:3128"
    watcher.settings = watcher.settings.replaced({"runner.proxy": proxy})
    watcher.provide()
    (spec,) = watcher.configurations.specs
    assert spec.environment["https_proxy"] == proxy
    assert "MIGLET_POOL_ID" not in spec.environment


# ---- config.sh fails -----------------------------------------------------------


def noted(watcher: Watcher) -> list[tuple[str, str]]:
    """Category and code of each fault of config.sh or of a launch."""
    faults = watcher.of(FaultNoted)
    assert all(fact.component == "runner" and fact.hint for fact in faults)
    return [(fact.category, fact.code) for fact in faults]


def test_a_failure_that_may_pass_is_noted_and_tried_again_with_the_same_token(watcher):
    watcher.configured_by(*[failing(SERVER_ERROR)] * 4, registering())
    watcher.provide()
    assert noted(watcher) == [("infrastructure", "server_error")] * 4
    assert watcher.of(FaultNoted)[0].message == SERVER_ERROR
    assert watcher.backoffs == [1.0, 2.0, 4.0, 6.0]
    assert watcher.tokens_asked == 1
    (launched,) = watcher.of(RunnerLaunched)
    assert launched.runner["attempts"] == 5


def test_a_failure_that_does_not_pass_ends_after_ten_attempts(watcher):
    watcher.configured_by(failing(SERVER_ERROR))
    fact = watcher.given_up()
    assert (fact.category, fact.code) == ("infrastructure", "server_error")
    assert fact.exit_status == 69
    assert len(watcher.configurations.specs) == MOST_ATTEMPTS == 10
    assert len(noted(watcher)) == len(watcher.backoffs) == MOST_ATTEMPTS - 1
    assert not watcher.listeners.specs


@pytest.mark.parametrize(
    ("script", "category", "code", "status"),
    [
        (failing(NO_GROUP), "misconfig", "group_unknown", 78),
        (failing("Must not run with sudo"), "misconfig", "runs_as_root", 78),
        (failing("", 126), "misconfig", "not_executable", 78),
        (failing("", 127), "misconfig", "not_found", 78),
        (failing(BAD_REQUEST), "permanent", "refused", 77),
        (failing("Dependencies is missing"), "permanent", "missing_dependency", 77),
    ],
)
def test_a_failure_that_is_final_is_not_tried_again(
    watcher, script, category, code, status
):
    watcher.configured_by(script)
    fact = watcher.given_up()
    assert (fact.category, fact.code, fact.exit_status) == (category, code, status)
    assert fact.message == (script.says or "it said nothing")
    assert fact.hint
    assert len(watcher.configurations.specs) == 1
    assert noted(watcher) == [] and watcher.backoffs == []


@pytest.mark.parametrize(
    ("says", "code"), [(EXPIRED, "token_refused"), (UNAUTHORIZED, "unauthorized")]
)
def test_a_token_that_github_refuses_is_replaced_twice_at_most(watcher, says, code):
    tokens = [token(f"AAATOKENNUMBER{number}") for number in range(5)]
    watcher.answers(*tokens)
    watcher.configured_by(failing(says))
    fact = watcher.given_up()
    assert (fact.category, fact.code, fact.exit_status) == ("permanent", code, 77)
    assert watcher.tokens_given == [each.token for each in tokens[:MOST_TOKENS]]
    assert len(watcher.of(TokenSpent)) == MOST_TOKENS == 3
    assert watcher.backoffs == [1.0, 2.0]


def test_a_second_token_may_be_the_right_one(watcher):
    watcher.answers(token(), token("AAASECONDTOKEN", labels=("new",)))
    watcher.configured_by(failing(EXPIRED), registering())
    watcher.provide()
    assert noted(watcher) == [("permanent", "token_refused")]
    (launched,) = watcher.of(RunnerLaunched)
    assert (launched.runner["attempts"], launched.runner["labels"]) == (2, ["new"])


def test_a_success_without_a_registration_is_none(watcher):
    watcher.configured_by(Script(says="Settings Saved."), registering())
    watcher.provide()
    assert noted(watcher) == [("infrastructure", "incomplete")]
    assert len(watcher.configurations.specs) == 2


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_registration_without_its_credentials_is_none(watcher, exit_code):
    half = registering(exit_code=exit_code, files=WITHOUT_CREDENTIALS)
    watcher.configured_by(half, registering())
    watcher.provide()
    assert len(noted(watcher)) == 1
    assert len(watcher.configurations.specs) == 2


def test_a_registration_under_another_name_is_none(watcher):
    watcher.configured_by(registering("other", exit_code=1), registering())
    watcher.provide()
    assert len(watcher.configurations.specs) == 2


def test_a_whole_registration_counts_whatever_config_sh_ends_with(watcher):
    watcher.configured_by(registering(exit_code=137))
    watcher.provide()
    assert len(watcher.configurations.specs) == 1
    assert noted(watcher) == []


def test_what_a_failed_config_sh_wrote_is_gone_before_the_next(watcher):
    left: list[bool] = []
    start = watcher.configurations.start

    def looking(spec: LaunchSpec) -> FakeConfiguration:
        left.append((watcher.directory / ".runner").exists())
        return start(spec)

    watcher.configurations.start = looking
    register(watcher.directory, "an-old-one")
    watcher.configured_by(registering("other", exit_code=1), registering())
    watcher.provide()
    assert left == [False, False]


def test_a_config_sh_that_hangs_is_killed_at_its_limit_and_tried_again(watcher):
    watcher.configured_by(hanging(), registering())
    watcher.provide()
    assert noted(watcher) == [("infrastructure", "timed_out")]
    hung, _ = watcher.configurations.runs
    assert hung.kills == 1
    waited = sum(seconds for seconds in watcher.waits if seconds == POLL_SECONDS)
    assert waited == pytest.approx(90.0, abs=5 * POLL_SECONDS)
    launch, kill = LAUNCH_SECONDS, KILL_SECONDS
    assert watcher.liveness == [LOAD_SECONDS, launch, kill, launch, launch]


def test_a_config_sh_that_cannot_be_started_is_a_fault_of_the_folder(watcher):
    problem = Problem("config.sh is missing", "unpack a whole release")
    watcher.configured_by(FolderUnusable([problem]))
    fact = watcher.given_up()
    assert (fact.category, fact.code) == ("misconfig", "runner_unusable")
    assert fact.exit_status == 78
    assert (fact.message, fact.hint) == problem


def test_a_group_that_config_sh_would_misread_never_gets_there(watcher):
    watcher.answers(token(runner_group="--replace"))
    fact = watcher.given_up()
    assert (fact.category, fact.code) == ("misconfig", "runner_unusable")
    assert "--runnergroup '--replace' begins with a dash" in fact.message
    assert not watcher.configurations.specs


def test_a_refusal_of_the_controllers_is_given_up_before_config_sh(watcher):
    watcher.answers(Refused("POST /registration-token failed: 403", 403))
    fact = watcher.given_up()
    assert (fact.category, fact.code) == ("permanent", "registration_refused")
    assert fact.exit_status == 77
    assert not watcher.configurations.specs and not watcher.of(TokenSpent)


def test_a_controller_that_does_not_answer_costs_no_attempt(watcher):
    down = ControllerUnreachable("503")
    watcher.answers(down, down, token())
    watcher.provide()
    assert [fact.call for fact in watcher.of(ControllerFailed)] == (
        ["registration-token"] * 2
    )
    assert watcher.backoffs == [1.0, 2.0]
    (launched,) = watcher.of(RunnerLaunched)
    assert launched.runner["attempts"] == 1


def test_a_user_that_does_not_exist_is_a_mistake_of_the_configuration(watcher):
    watcher.settings = watcher.settings.replaced({"runner.user": "no-such-user"})
    fact = watcher.given_up()
    assert fact.code == "runner_unusable" and "no-such-user" in fact.message
    assert not watcher.client.calls


def test_what_is_in_the_way_and_cannot_be_removed_is_given_up(watcher, monkeypatch):
    def refuse(directory):
        error = OSError(errno.EPERM, "Operation not permitted")
        raise NotRemovable(directory / ".runner", error)

    monkeypatch.setattr(registration, "forget_registration", refuse)
    fact = watcher.given_up()
    assert (fact.category, fact.code) == ("misconfig", "runner_unusable")
    assert fact.exit_status == 78
    assert "cannot remove" in fact.message and "lsattr" in fact.hint
    assert not watcher.client.calls


# ---- a registration that is there already --------------------------------------


def test_a_registration_is_used_again_where_the_order_allows_it(watcher):
    register(watcher.directory)
    watcher.provide(keep_registration=True)
    assert not watcher.configurations.specs and not watcher.client.calls
    (launched,) = watcher.of(RunnerLaunched)
    assert launched.runner["labels"] == ["own-label"]
    assert launched.runner["runner_url"] is None
    assert launched.runner["attempts"] == 1


@pytest.mark.parametrize(
    ("name", "files", "keep"),
    [
        (NAME, REGISTRATION_FILES, False),
        ("other", REGISTRATION_FILES, True),
        (NAME, WITHOUT_CREDENTIALS, True),
    ],
    ids=["not to be kept", "of another name", "without its credentials"],
)
def test_any_other_registration_is_made_anew(watcher, name, files, keep):
    register(watcher.directory, name, files)
    watcher.provide(keep_registration=keep)
    assert len(watcher.configurations.specs) == 1


def test_a_config_sh_that_a_dead_watcher_left_is_waited_for_and_used(watcher):
    left = watcher.configurations.leave(watcher.directory, registering())
    watcher.provide()
    assert left.kills == 1, "what it left running is killed"
    assert not watcher.configurations.specs and not watcher.client.calls
    assert watcher.of(RunnerLaunched)


def test_one_that_failed_costs_nothing_but_its_time(watcher):
    watcher.configurations.leave(watcher.directory, failing(SERVER_ERROR))
    watcher.provide()
    assert len(watcher.configurations.specs) == 1
    assert noted(watcher) == []


def test_one_that_hangs_is_killed_at_its_limit(watcher):
    left = watcher.configurations.leave(watcher.directory, hanging())
    watcher.provide()
    assert left.kills == 1
    assert watcher.clock.now - 1000.0 > 90.0
    assert len(watcher.configurations.specs) == 1


def test_one_that_cannot_be_looked_for_is_given_up_before_a_token_is_asked_for(watcher):
    def fail():
        raise LaunchFailed("the folder is locked and has no record of a run")

    watcher.configurations.find = fail
    fact = watcher.given_up()
    assert (fact.category, fact.code) == ("infrastructure", "runner_unusable")
    assert not watcher.client.calls


# ---- the launch ----------------------------------------------------------------


def test_a_launch_that_fails_is_tried_again_without_another_registration(watcher):
    watcher.listeners.failures = [LaunchFailed("no more processes")] * 2
    watcher.provide()
    assert noted(watcher) == [("infrastructure", "launch_failed")] * 2
    assert watcher.backoffs == [1.0, 2.0]
    assert len(watcher.configurations.specs) == 1
    assert len(watcher.of(RunnerLaunched)) == 1


def test_a_launch_that_fails_five_times_is_given_up(watcher):
    watcher.listeners.failures = [LaunchFailed("no more processes")] * 9
    fact = watcher.given_up()
    assert (fact.category, fact.code) == ("infrastructure", "runner_unusable")
    assert fact.message == "no more processes" and fact.hint
    assert len(watcher.listeners.specs) == MOST_LAUNCHES == 5
    assert len(noted(watcher)) == len(watcher.backoffs) == MOST_LAUNCHES - 1
    assert not watcher.of(RunnerLaunched)


@pytest.mark.parametrize(
    ("error", "category", "status"),
    [
        (RunnerPresent("a run in runner has not ended"), "permanent", 1),
        (FolderUnusable([Problem("no Listener", "unpack")]), "misconfig", 78),
    ],
)
def test_a_launch_that_another_attempt_cannot_help_is_given_up_at_once(
    watcher, error, category, status
):
    watcher.listeners.failures = [error]
    fact = watcher.given_up()
    assert (fact.category, fact.code) == (category, "runner_unusable")
    assert fact.message == str(error) and fact.hint
    assert len(watcher.listeners.specs) == 1


def test_the_registrations_files_are_remembered_before_the_listener_runs(watcher):
    start, ours = watcher.listeners.start, []

    def looking(spec: LaunchSpec) -> Any:
        ours.append(watcher.folder._is_registration_ours())
        return start(spec)

    watcher.listeners.start = looking
    watcher.provide()
    assert ours == [True]
    (watcher.directory / ".runner").write_text("{}")
    assert not watcher.folder._is_registration_ours()


def test_hooks_that_do_not_report_are_noted_and_the_runner_starts(watcher):
    (watcher.directory / ".env").write_text("ACTIONS_RUNNER_HOOK_JOB_STARTED=/x.sh\n")
    watcher.provide()
    (fact,) = watcher.of(FaultNoted)
    assert (fact.category, fact.code) == ("misconfig", "job_hooks_unusable")
    assert "ACTIONS_RUNNER_HOOK_JOB_STARTED=/x.sh" in fact.message and fact.hint
    assert watcher.of(RunnerLaunched)


def test_hooks_that_are_turned_off_are_neither_started_nor_missed(watcher):
    (watcher.directory / ".env").write_text("ACTIONS_RUNNER_HOOK_JOB_STARTED=/x.sh\n")
    off = {"features.job_hooks": False, "features.perflog": False}
    watcher.settings = watcher.settings.replaced(off)
    watcher.provide()
    (spec,) = watcher.listeners.specs
    assert not {*spec.environment} & {*HOOK_VARIABLES, "RUNNER_PERFLOG"}
    assert not watcher.of(FaultNoted)


def test_hooks_that_the_runners_user_cannot_read_are_left_out(watcher, monkeypatch):
    monkeypatch.setattr(hooks, "unreadable", lambda *_: "user x may not read hooks")
    watcher.provide()
    (spec,) = watcher.listeners.specs
    assert not {*spec.environment} & {*HOOK_VARIABLES}
    (fact,) = watcher.of(FaultNoted)
    assert (fact.code, fact.message) == (
        "job_hooks_unusable",
        "user x may not read hooks",
    )


def test_each_listener_finds_the_folders_for_its_reports_new_and_empty(watcher):
    for name in ("hooks", "perflog"):
        folder = watcher.directory.parent / "job" / name
        folder.mkdir(parents=True)
        (folder / "of-an-earlier-run").touch()
    watcher.provide()
    (spec,) = watcher.listeners.specs
    assert spec.environment["MIGLET_JOB_DIRECTORY"] == str(spec.job_directory)
    assert not [*spec.job_directory.iterdir()]
    assert not [*Path(spec.environment["RUNNER_PERFLOG"]).iterdir()]


def test_without_a_folder_for_the_hooks_reports_no_listener_is_started(watcher):
    (watcher.directory.parent / "job").write_text("in the way")
    fact = watcher.given_up()
    assert (fact.category, fact.code) == ("infrastructure", "runner_unusable")
    assert "cannot make" in fact.message
    assert not watcher.listeners.specs


# ---- dropped on the way --------------------------------------------------------


def test_a_registration_that_is_dropped_takes_config_sh_along(watcher):
    watcher.configured_by(hanging())
    steps = RunnerRegistration(watcher, ProvideRunner(NAME)).run()
    while not watcher.configurations.runs:
        next(steps)
    steps.close()
    assert watcher.configurations.runs[0].kills == 1
    assert watcher.configurations.find() is None
    assert not watcher.listeners.specs


def test_one_that_is_dropped_in_a_back_off_starts_nothing_more(watcher):
    watcher.configured_by(failing(SERVER_ERROR), registering())
    steps = RunnerRegistration(watcher, ProvideRunner(NAME)).run()
    while not watcher.of(FaultNoted):
        next(steps)
    steps.close()
    assert len(watcher.configurations.specs) == 1
    assert watcher.configurations.find() is None
    assert not watcher.listeners.specs
