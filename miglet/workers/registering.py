"""How a registered, listening runner comes about: token, config.sh, launch.

Written as a sequence that yields the seconds it wants to wait: the runner-watcher
goes on living in between, and may drop it at any point.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import os
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any, Protocol

from miglet.config.settings import Settings
from miglet.controller.answers import RegistrationToken
from miglet.controller.client import Client
from miglet.controller.retry import Backoff
from miglet.errors import (
    MISCONFIGURED,
    REFUSED,
    UNAVAILABLE,
    ControllerError,
    MigletError,
    Refused,
)
from miglet.events import Identity
from miglet.facts import (
    ControllerAnswered,
    ControllerFailed,
    FaultNoted,
    RegistrationFailed,
    RunnerLaunched,
    TokenSpent,
)
from miglet.failpoints import reach
from miglet.messages import Fact
from miglet.orders import ProvideRunner
from miglet.runner import hooks, metadata_block
from miglet.runner.configuration import Configuration, Registration
from miglet.runner.diag import recent_logs
from miglet.runner.environment import (
    Hooks,
    account_environment,
    proxy_environment,
    runner_environment,
)
from miglet.runner.folder import forget_registration, registered, runner_version
from miglet.runner.launcher import LAUNCH_SECONDS, LaunchSpec
from miglet.runner.launchers import configuration_launcher, runner_launcher
from miglet.runner.outcome import Next, Outcome
from miglet.runner.run import Run
from miglet.security import Account, account
from miglet.workers.asking import asked, expired, registration_token_in

#: A step yields the seconds until it wants to go on.
Steps = Generator[float, None, None]

#: Registration tokens that one registration may use.
MOST_TOKENS = 3

#: Seconds between two looks at config.sh.
POLL_SECONDS = 0.03

#: The scripts that the runner calls before and after a job.
HOOKS = Path(hooks.__file__).with_name("hooks")

EXIT_STATUSES = {"misconfig": MISCONFIGURED, "permanent": REFUSED}


class Hopeless(MigletError):
    """No runner can be registered; carries the fact to report."""

    def __init__(self, fact: RegistrationFailed) -> None:
        super().__init__(fact.message)
        self.fact = fact


class Host(Protocol):
    """What registering needs of the runner-watcher."""

    settings: Settings
    identity: Identity
    client: Client

    def report(self, fact: Fact) -> None:
        """Tell the arbiter."""

    def be_patient(self, seconds: float) -> None:
        """Say that the next step may take so long."""


class Registering:
    """One attempt to provide a runner, from the order to the launched Listener."""

    def __init__(self, host: Host, order: ProvideRunner) -> None:
        settings = host.settings
        self._host = host
        self._order = order
        self._directory = Path(settings.runner.directory)
        self._runtime = Path(settings.paths.runtime)
        self._account: Account | None = None
        retry = settings.controller.retry
        self._backoff = Backoff(retry.initial_backoff, retry.max_backoff)
        self._began = time.time()
        self._attempts = 0
        self._token: RegistrationToken | None = None
        self._tokens = 0

    def run(self) -> Generator[float, None, Run]:
        """The whole way; returns the Run. Raises Hopeless when there is none."""
        try:
            self._account = account(self._host.settings.runner.user)
            self._host.be_patient(metadata_block.LOAD_SECONDS)
            metadata_block.apply(self._host.settings, self._account)
            yield from self._end_leftover()
            if not self._has_registration():
                yield from self._configure()
            return self._launch()
        except MigletError as error:
            if isinstance(error, Hopeless):
                raise
            raise Hopeless(failure_of(error)) from error

    def _has_registration(self) -> bool:
        """Whether the folder is registered under the name that is wanted."""
        present = registered(self._directory)
        wanted = self._order.name
        return (
            self._order.keep_registration
            and present is not None
            and present.agent_name == wanted
        )

    def _configure(self) -> Steps:
        while True:
            forget_registration(self._directory)
            if self._token is None:
                self._token = yield from self._fetch_token()
            outcome = yield from self._run_config(self._token)
            present = registered(self._directory)
            if outcome.good or (present and present.agent_name == self._order.name):
                return
            yield self._after_failure(outcome)

    def _end_leftover(self) -> Steps:
        """A config.sh that a dead watcher left may still register: see it end."""
        launcher = configuration_launcher(self._host.settings)
        leftover = Configuration.leftover(launcher)
        if leftover is None:
            return
        yield from self._seen_to_end(leftover)
        self._order = dataclasses.replace(self._order, keep_registration=True)

    def _run_config(self, token: RegistrationToken) -> Generator[float, None, Outcome]:
        github = self._host.settings.github
        self._attempts += 1
        wanted = Registration(
            directory=self._directory,
            url=token.runner_url,
            name=self._order.name,
            labels=tuple(token.labels or github.labels),
            runner_group=token.runner_group or github.runner_group,
            environment=self._plain_environment(),
            account=self._account,
        )
        self._host.report(TokenSpent(hashlib.sha256(token.token.encode()).hexdigest()))
        launcher = configuration_launcher(self._host.settings)
        self._host.be_patient(LAUNCH_SECONDS)
        reach("configuration.starting")
        running = Configuration.start(launcher, wanted, token.token)
        reach("configuration.started")
        outcome = yield from self._seen_to_end(running)
        reach("configuration.ended")
        return outcome

    def _seen_to_end(self, running: Configuration) -> Generator[float, None, Outcome]:
        """Wait for config.sh, but not for ever; dropped on the way, it is killed."""
        limit = time.monotonic() + self._host.settings.github.registration_timeout
        try:
            while (outcome := running.poll()) is None:
                if time.monotonic() >= limit:
                    self._host.be_patient(10.0)
                    return running.kill()
                yield POLL_SECONDS
        finally:
            if running.outcome is None:
                running.kill()
        return outcome

    def _after_failure(self, outcome: Outcome) -> float:
        """Seconds until the next attempt; raises Hopeless when there is none."""
        if outcome.next is Next.NEW_TOKEN:
            self._token = None
            if self._tokens >= MOST_TOKENS:
                raise Hopeless(refusal(outcome))
        if outcome.next is Next.GIVE_UP:
            raise Hopeless(refusal(outcome))
        delay = self._backoff.delay()
        self._host.report(
            FaultNoted(
                outcome.category, outcome.kind, outcome.message, "runner", outcome.hint
            )
        )
        return delay

    def _fetch_token(self) -> Generator[float, None, RegistrationToken]:
        while True:
            answer = yield from self._asked()
            if isinstance(answer, RegistrationToken):
                self._tokens += 1
                self._backoff.reset()
                return answer
            yield answer

    def _asked(self) -> Generator[float, None, RegistrationToken | float]:
        """A token, or the seconds until it is asked for again."""
        host, settings = self._host, self._host.settings
        given = self._given()
        if given:
            return given
        wanted = {
            "org_id": settings.org_id,
            "pool_id": settings.pool_id,
            "runner_group": settings.github.runner_group,
            "labels": list(settings.github.labels),
        }
        call = functools.partial(
            host.client.registration_token, wanted, host.identity.trace_id
        )
        try:
            told = yield from asked(host.client, call, settings.controller.timeout)
        except Refused as error:
            raise Hopeless(failure_of(error)) from error
        except ControllerError as error:
            return self._asked_in_vain(error.category, str(error), error)
        token = registration_token_in(told)
        host.report(ControllerAnswered("registration-token", told.clock_offset_seconds))
        if expired(token, told.clock_offset_seconds):
            return self._asked_in_vain("transient", "the token had already expired")
        return token

    def _given(self) -> RegistrationToken | None:
        """The token that the metadata had from the start, if it is of use still.

        It is used once; what refuses or outlives it is refreshed by the controller.
        """
        settings = self._host.settings
        if settings.github.token_source != "metadata" or self._tokens:
            return None
        # Only a machine that is to use it pays for what reads metadata.
        tokens = importlib.import_module("miglet.metadata.tokens")
        self._host.be_patient(tokens.LOOK_SECONDS)
        try:
            token = tokens.registration_token(settings, os.environ)
        except MigletError as error:
            told = f"{error}; the controller is asked instead"
            self._host.report(
                FaultNoted(error.category, "metadata_token", told, "runner", error.hint)
            )
            return None
        spent = hashlib.sha256(token.token.encode()).hexdigest()
        return None if spent in self._order.spent_tokens else token

    def _asked_in_vain(
        self, category: str, reason: str, error: ControllerError | None = None
    ) -> float:
        delay = self._backoff.delay(error)
        self._host.report(
            ControllerFailed("registration-token", category, reason, delay)
        )
        if self._backoff.failures == self._host.settings.controller.retry.max_attempts:
            self._host.report(
                FaultNoted(category, "no_registration_token", reason, "controller")
            )
        return delay

    def _launch(self) -> Run:
        """Start the Listener; from here on the run's folder knows of it."""
        job, perflog = self._runtime / "job", self._runtime / "perflog"
        for folder in (job, perflog):
            hooks.prepare(folder, self._account)
        features = self._host.settings.features
        environment = runner_environment(
            self._account,
            os.environ,
            job,
            Hooks(HOOKS / "job-started.sh", HOOKS / "job-completed.sh")
            if features.job_hooks
            else None,
            perflog if features.perflog else None,
            self._host.settings.controller.proxy,
        )
        spec = LaunchSpec(
            run_id=uuid.uuid4().hex,
            name=self._order.name,
            directory=self._directory,
            argv=(str(self._directory / "bin" / "Runner.Listener"), "run"),
            environment=environment,
            account=self._account,
            job_directory=job,
            earlier_logs=recent_logs(self._directory / "_diag", time.time()),
        )
        self._host.be_patient(LAUNCH_SECONDS)
        reach("runner.launching")
        run = runner_launcher(self._host.settings).start(spec)
        reach("runner.launched")
        self._host.report(RunnerLaunched(self.described(run)))
        return run

    def described(self, run: Run) -> dict[str, Any]:
        """What the arbiter remembers of the runner."""
        token, github = self._token, self._host.settings.github
        return {
            **description(run),
            "labels": list(token.labels if token and token.labels else github.labels),
            "runner_group": token.runner_group if token else github.runner_group,
            "runner_url": token.runner_url if token else None,
            "attempts": max(1, self._attempts),
            "began": self._began,
        }

    def _plain_environment(self) -> dict[str, str]:
        proxy = proxy_environment(self._host.settings.controller.proxy)
        return account_environment(self._account, os.environ) | proxy


def description(run: Run) -> dict[str, Any]:
    """What the run itself and its folder tell of the runner."""
    present = registered(run.directory)
    agent_id = present.agent_id if present else ""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "pid": run.listener.pid,
        "start_time": run.listener.start_time,
        "unit": run.unit.name if run.unit else None,
        "folder": str(run.folder),
        "version": runner_version(run.directory),
        "agent_id": int(agent_id) if agent_id.isdigit() else None,
    }


def refusal(outcome: Outcome) -> RegistrationFailed:
    """config.sh will not do it."""
    status = EXIT_STATUSES.get(outcome.category, UNAVAILABLE)
    return RegistrationFailed(
        outcome.category, outcome.kind, outcome.message, outcome.hint, status
    )


def failure_of(error: MigletError) -> RegistrationFailed:
    """An error of ours as the fact that it is."""
    status = EXIT_STATUSES.get(error.category, error.exit_status)
    code = "registration_refused" if isinstance(error, Refused) else "runner_unusable"
    return RegistrationFailed(error.category, code, str(error), error.hint, status)
