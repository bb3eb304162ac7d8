"""No token goes to a program that a job could have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miglet.messages.events import Identity
from miglet.messages.orders import ProvideRunner
from miglet.runner.folder_record import FolderRecord
from miglet.workers.registration import RegistrationRemoval, RunnerRegistration
from miglet.workers.steps import GivenUp
from tests.sample_settings import sample_settings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root starts other users")


class Watcher:
    """As much of the runner-watcher as its steps need; asking for a token fails."""

    identity = Identity("v", "p", "o", "0" * 32)

    def __init__(self, folder: Path) -> None:
        places = {"runner.directory": str(folder / "runner"), "runner.user": "nobody"}
        self.settings = sample_settings({**places, "paths.runtime": str(folder)})
        self.folder = FolderRecord(folder, folder / "runner")
        self.reported: list[object] = []

    @property
    def client(self) -> None:
        raise AssertionError("a token is asked for")

    def report(self, fact: object) -> None:
        self.reported.append(fact)

    def extend_liveness(self, seconds: float) -> None:
        """The test is."""


@pytest.fixture
def watcher(tmp_path) -> Watcher:
    """A watcher of a registered runner that belongs to the runner's user."""
    runner = tmp_path / "runner"
    runner.mkdir()
    (runner / ".runner").write_text('{"agentId": 7, "agentName": "vm-1"}')
    os.chown(runner, 65534, 65534)
    return Watcher(tmp_path)


def test_no_runner_is_registered_again_where_a_job_could_change_config_sh(watcher):
    watcher.folder.note_job()
    with pytest.raises(GivenUp) as caught:
        next(RunnerRegistration(watcher, ProvideRunner("vm-1")).run())
    fact = caught.value.fact
    assert (fact.code, fact.exit_status) == ("runner_folder_changeable", 78)
    assert "install-runner" in fact.hint


def test_its_registration_is_left_to_the_controller(watcher):
    watcher.folder.note_job()
    with pytest.raises(StopIteration) as ended:
        next(RegistrationRemoval(watcher).run())
    removal, detail = ended.value.value
    assert removal == "left_to_controller"
    assert detail.startswith("left to the controller: a job has run there")
    assert not (Path(watcher.settings.runner.directory) / ".runner").exists()


def test_before_the_first_job_a_token_is_asked_for(watcher):
    with pytest.raises(AssertionError, match="a token is asked for"):
        next(RegistrationRemoval(watcher).run())
