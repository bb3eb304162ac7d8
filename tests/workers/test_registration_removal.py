"""How a registration is taken back at the end, step by step."""

from __future__ import annotations

import logging

import pytest

from miglet.errors import ControllerUnreachable, Refused
from miglet.messages.facts import ControllerFailed
from miglet.redaction import forget_secrets, redact
from miglet.runner.installation import FolderUnusable, Problem
from miglet.runner.launcher import LAUNCH_SECONDS, LaunchFailed
from miglet.workers.registration import REMOVAL_SECONDS, RegistrationRemoval
from miglet.workers.steps import POLL_SECONDS
from tests.workers.fake_registration import (
    REMOVAL,
    SERVER_ERROR,
    Script,
    failing,
    faked,
    hanging,
    register,
    registering,
)


@pytest.fixture
def watcher(tmp_path, monkeypatch):
    yield faked(tmp_path, monkeypatch)
    forget_secrets()


def test_a_registration_is_removed_with_a_token_for_that(watcher, caplog):
    caplog.set_level(logging.DEBUG)
    register(watcher.directory)
    watcher.configured_by(Script(says="Runner removed", removes=True))
    assert watcher.remove() == ("removed", "removed")
    assert watcher.client.of("removal_token") == [
        {"org_id": "org-1", "pool_id": "pool-1"}
    ]
    (spec,) = watcher.configurations.specs
    assert spec.argv == (str(watcher.directory / "config.sh"), "remove")
    assert watcher.tokens_given == [REMOVAL.token]
    assert REMOVAL.token not in repr(spec) + caplog.text
    assert REMOVAL.token not in redact(f"ended with {REMOVAL.token}")
    assert watcher.liveness[0] == LAUNCH_SECONDS
    assert not watcher.queue.facts


def test_where_there_is_no_registration_no_token_is_asked_for(watcher):
    removal, detail = watcher.remove()
    assert removal == "not_registered" and detail
    assert not watcher.client.calls and not watcher.configurations.specs


def test_a_controller_without_removal_tokens_removes_the_runner_itself(watcher):
    register(watcher.directory)
    watcher.answers(removal=(None,))
    removal, detail = watcher.remove()
    assert removal == "left_to_controller"
    assert detail == "the controller removes the runner itself"
    assert not (watcher.directory / ".runner").exists()
    assert not watcher.configurations.specs


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (ControllerUnreachable("503 Service Unavailable"), "transient"),
        (Refused("403 Forbidden", 403), "permanent"),
    ],
)
def test_a_removal_token_is_asked_for_once(watcher, error, category):
    register(watcher.directory)
    watcher.answers(removal=(error,))
    assert watcher.remove() == ("failed", f"no removal token: {error}")
    (fact,) = watcher.of(ControllerFailed)
    assert (fact.call, fact.category) == ("removal-token", category)
    assert (fact.reason, fact.retry_in_seconds) == (str(error), 0)
    assert len(watcher.client.calls) == 1
    assert not (watcher.directory / ".runner").exists(), "nobody uses it again"
    assert not watcher.configurations.specs


def test_a_removal_that_config_sh_fails_is_told_in_its_words_and_not_repeated(watcher):
    register(watcher.directory)
    watcher.configured_by(failing(f"{SERVER_ERROR} for {REMOVAL.token}"))
    removal, detail = watcher.remove()
    assert removal == "failed"
    assert detail.startswith(f"not removed: {SERVER_ERROR}")
    assert REMOVAL.token not in detail
    assert len(watcher.configurations.specs) == 1 and watcher.backoffs == []


def test_a_removal_that_hangs_is_killed_when_its_time_is_up(watcher):
    register(watcher.directory)
    watcher.configured_by(hanging())
    assert watcher.remove() == ("failed", "not removed: Connecting")
    assert watcher.configurations.runs[0].kills == 1
    waited = watcher.clock.now - 1000.0
    assert waited == pytest.approx(REMOVAL_SECONDS, abs=2 * POLL_SECONDS)
    assert REMOVAL_SECONDS == 5.0, "the machine's end waits for it"


@pytest.mark.parametrize(
    "error",
    [
        LaunchFailed("no more processes"),
        FolderUnusable([Problem("config.sh is missing", "unpack")]),
    ],
)
def test_a_removal_that_cannot_be_started_has_failed(watcher, error):
    register(watcher.directory)
    watcher.configured_by(error)
    assert watcher.remove() == ("failed", f"not removed: {error}")


def test_a_leftover_that_cannot_be_looked_for_fails_the_removal(watcher):
    def fail():
        raise LaunchFailed("the folder is locked and has no record of a run")

    register(watcher.directory)
    watcher.configurations.find = fail
    removal, detail = watcher.remove()
    assert removal == "failed" and "is locked" in detail
    assert not watcher.client.calls


def test_without_the_runners_user_the_removal_is_left_to_the_controller(watcher):
    register(watcher.directory)
    watcher.settings = watcher.settings.replaced({"runner.user": "no-such-user"})
    removal, detail = watcher.remove()
    assert removal == "left_to_controller" and "no-such-user" in detail
    assert not watcher.client.calls
    assert not (watcher.directory / ".runner").exists()


def test_a_config_sh_that_a_dead_watcher_left_ends_before_the_removal(watcher):
    left = watcher.configurations.leave(watcher.directory, hanging())
    register(watcher.directory)
    watcher.configured_by(Script(removes=True))
    assert watcher.remove() == ("removed", "removed")
    assert left.kills == 1


def test_a_config_sh_that_a_dead_watcher_left_cannot_register_after_the_removal(
    watcher,
):
    left = watcher.configurations.leave(watcher.directory, hanging())
    assert watcher.remove()[0] == "not_registered"
    assert left.kills == 1
    assert watcher.configurations.find() is None


def test_a_removal_that_is_dropped_takes_config_sh_along_and_can_be_repeated(watcher):
    register(watcher.directory)
    watcher.configured_by(hanging(), Script(removes=True))
    steps = RegistrationRemoval(watcher).run()
    while not watcher.configurations.runs:
        next(steps)
    steps.close()
    assert watcher.configurations.runs[0].kills == 1
    assert watcher.remove() == ("removed", "removed")


def test_a_registration_that_a_dead_watcher_began_is_removed_when_it_is_there(watcher):
    watcher.configurations.leave(watcher.directory, registering())
    watcher.configured_by(Script(removes=True))
    assert watcher.remove() == ("removed", "removed")
    assert watcher.tokens_given == [REMOVAL.token]
