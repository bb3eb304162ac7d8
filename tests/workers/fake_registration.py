"""config.sh, the Listener and the controller, for tests of a registration's steps.

Time passes only as far as the steps ask for it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miglet.controller.answers import RegistrationToken, RemovalToken
from miglet.http import retry
from miglet.messages.facts import RegistrationFailed
from miglet.messages.orders import ProvideRunner
from miglet.runner.folder_record import FolderRecord
from miglet.runner.identity import ProcessIdentity
from miglet.runner.installation import REGISTRATION_FILES
from miglet.runner.launcher import LaunchSpec
from miglet.runner.records import ExitStatus
from miglet.runner.registration import TOKEN_VARIABLE
from miglet.runner.run import RunnerPresent
from miglet.workers import registration, token_request
from miglet.workers.registration import RegistrationRemoval, RunnerRegistration
from miglet.workers.steps import POLL_SECONDS, GivenUp
from tests.sample_settings import sample_settings
from tests.workers.fakes import IDENTITY, FakeClient, FakeClock, FakeQueue

NAME = "vm-1-8a6ba3f6"
URL = "https://github.com/octo"
BEGAN = 1.7e9

#: Much longer than any test needs: a test that gets there hangs.
MOST_STEPS = 5000


def token(text: str = "AAAREGISTRATIONTOKEN", **fields: Any) -> RegistrationToken:
    """A registration token as the controller gives it."""
    defaults = {"runner_group": "ci", "labels": ("linux", "x64"), "expires_at": None}
    return RegistrationToken(text, **{"runner_url": URL, **defaults, **fields})


REMOVAL = RemovalToken("AAAREMOVALTOKEN", None)

#: What config.sh says where GitHub has a fault.
SERVER_ERROR = "Response status code does not indicate success: 503"


@dataclass
class Script:
    """What one run of config.sh does."""

    exit_code: int | None = 0
    says: str = ""
    #: The name that it registers; empty: it writes nothing.
    registers: str = ""
    #: Those of its files that it writes then.
    files: tuple[str, ...] = REGISTRATION_FILES
    #: How often it is seen running before it has ended; None: it hangs.
    looks: int | None = 2
    #: Whether it removes the registration's files.
    removes: bool = False


def registering(name: str = NAME, **changes: Any) -> Script:
    return Script(says="Settings Saved.", registers=name, **changes)


def failing(says: str, exit_code: int | None = 1) -> Script:
    return Script(exit_code, says)


def hanging() -> Script:
    return Script(says="Connecting", looks=None)


class FakeConfiguration:
    """The run of one config.sh."""

    def __init__(self, spec: LaunchSpec, script: Script, kept: list[Any]) -> None:
        self.argv, self.directory = spec.argv, spec.directory
        self.script = script
        self.kills = 0
        self._looks = script.looks
        self._kept = kept

    def ended(self) -> ExitStatus | None:
        if self._looks is None:
            return None
        self._looks -= 1
        if self._looks >= 0:
            return None
        if self.script.registers:
            register(self.directory, self.script.registers, self.script.files)
        if self.script.removes:
            unregister(self.directory)
        return ExitStatus(self.script.exit_code, None, 0.0)

    def printed(self) -> str:
        return self.script.says

    def kill(self) -> None:
        self.kills += 1

    def forget(self) -> None:
        self._kept.clear()


def register(
    directory: Path, name: str = NAME, files: tuple[str, ...] = REGISTRATION_FILES
) -> None:
    """Write what config.sh writes."""
    document = {"agentId": 7, "agentName": name, "poolName": "ci"}
    for each in files:
        (directory / each).write_text(json.dumps(document))


def unregister(directory: Path) -> None:
    for each in REGISTRATION_FILES:
        (directory / each).unlink(missing_ok=True)


class FakeConfigurations:
    """Launches config.sh, which follows one script after another; the last repeats."""

    def __init__(self) -> None:
        self.scripts: deque[Script | Exception] = deque([registering()])
        self.specs: list[LaunchSpec] = []
        self.runs: list[FakeConfiguration] = []
        #: The one run that was not forgotten, if any.
        self.present: list[FakeConfiguration] = []

    def start(self, spec: LaunchSpec) -> FakeConfiguration:
        if self.present:
            raise RunnerPresent("a run in configuration has not ended")
        self.specs.append(spec)
        script = self.scripts[0]
        if len(self.scripts) > 1:
            self.scripts.popleft()
        if isinstance(script, Exception):
            raise script
        self.runs.append(FakeConfiguration(spec, script, self.present))
        self.present[:] = self.runs[-1:]
        return self.runs[-1]

    def find(self) -> FakeConfiguration | None:
        return self.present[0] if self.present else None

    def leave(self, directory: Path, script: Script) -> FakeConfiguration:
        """A watcher that died had started this one."""
        argv = (str(directory / "config.sh"), "--unattended")
        spec = LaunchSpec("configuration", "config.sh", directory, argv, {})
        self.present[:] = [FakeConfiguration(spec, script, self.present)]
        return self.present[0]


@dataclass
class FakeListeners:
    """Launches the Listener, after as many failures as there are."""

    failures: list[Exception] = field(default_factory=list)
    specs: list[LaunchSpec] = field(default_factory=list)

    def start(self, spec: LaunchSpec) -> Any:
        self.specs.append(spec)
        if self.failures:
            raise self.failures.pop(0)
        return SimpleNamespace(
            run_id=spec.run_id,
            name=spec.name,
            listener=ProcessIdentity(17, 4711, "boot"),
            unit=None,
            folder=spec.directory / "run",
            directory=spec.directory,
        )


class Watcher:
    """As much of the runner-watcher as its steps need."""

    identity = IDENTITY

    def __init__(self, root: Path) -> None:
        self.directory = root / "runner"
        self.directory.mkdir()
        (root / "state").mkdir()
        self.settings = sample_settings(
            {
                "controller.retry": {"initial_backoff": 1.0, "max_backoff": 6.0},
                "github": {
                    "labels": ["own-label"],
                    "runner_group": "own-group",
                    "registration_timeout": 90.0,
                },
                "runner": {"directory": str(self.directory), "user": None},
                "paths": {"state": str(root / "state"), "runtime": str(root)},
            }
        )
        self.folder = FolderRecord(root / "state", self.directory)
        self.client = FakeClient(registration_token=[token()], removal_token=[REMOVAL])
        self.queue = FakeQueue()
        self.clock = FakeClock()
        self.configurations = FakeConfigurations()
        self.listeners = FakeListeners()
        self.liveness: list[float] = []
        self.waits: list[float] = []

    def report(self, fact: Any) -> None:
        self.queue.put(fact)

    def extend_liveness(self, seconds: float) -> None:
        self.liveness.append(seconds)

    def configured_by(self, *scripts: Script | Exception) -> None:
        """What config.sh does, each time that it is started."""
        self.configurations.scripts = deque(scripts)

    def answers(self, *replies: Any, removal: tuple[Any, ...] = (REMOVAL,)) -> None:
        """What the controller says to the requests for tokens."""
        self.client = FakeClient(registration_token=replies, removal_token=removal)

    def drive(self, steps: Generator[float, None, Any]) -> Any:
        """What the steps return; as much time passes as they ask for."""
        for _ in range(MOST_STEPS):
            try:
                seconds = next(steps)
            except StopIteration as end:
                return end.value
            self.clock.advance(seconds)
            self.waits.append(seconds)
        raise AssertionError("the steps do not end")

    def provide(self, **order: Any) -> Any:
        """The run that comes of an order."""
        return self.drive(RunnerRegistration(self, ProvideRunner(NAME, **order)).run())

    def given_up(self, **order: Any) -> RegistrationFailed:
        """The fact with which the registration is given up."""
        with pytest.raises(GivenUp) as caught:
            self.provide(**order)
        return caught.value.fact

    def remove(self) -> tuple[str, str]:
        """What becomes of the registration."""
        return self.drive(RegistrationRemoval(self).run())

    def of(self, kind: type) -> list[Any]:
        return [fact for fact in self.queue.facts if isinstance(fact, kind)]

    @property
    def backoffs(self) -> list[float]:
        """The waits that were longer than a look at config.sh."""
        return [seconds for seconds in self.waits if seconds > POLL_SECONDS]

    @property
    def tokens_given(self) -> list[str]:
        """The token of each config.sh."""
        return [spec.environment[TOKEN_VARIABLE] for spec in self.configurations.specs]

    @property
    def tokens_asked(self) -> int:
        return len(self.client.of("registration_token"))


def request(context: Any, call: Callable[[], Any], seconds: float) -> Any:
    """`request_token` without the child: its reply comes at once."""
    queue = FakeQueue()
    yield 0.0
    token_request._request(context.client, call, queue)
    (reply,) = queue.take(token_request.TokenReply)
    reply.raise_error()
    return reply


def faked(root: Path, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    """A watcher, and all that the steps reach for replaced by what it has."""
    made = Watcher(root)
    times = SimpleNamespace(monotonic=made.clock, time=lambda: BEGAN)
    monkeypatch.setattr(registration, "time", times)
    monkeypatch.setattr(
        registration, "configuration_launcher", lambda settings: made.configurations
    )
    monkeypatch.setattr(
        registration, "runner_launcher", lambda settings: made.listeners
    )
    stays = SimpleNamespace(become=lambda user: None, TASK_USER="nobody")
    monkeypatch.setattr(token_request, "privileges", stays)
    for module in (registration, token_request):
        monkeypatch.setattr(module, "request_token", request)
    monkeypatch.setattr(retry.backoff, "full_jitter", lambda step: step)
    return made
