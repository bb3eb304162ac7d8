"""How a registered, listening runner comes about: token, config.sh, launch."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from miglet.controller.answers import RegistrationToken
from miglet.errors import UNAVAILABLE, MigletError
from miglet.http.retry import Backoff
from miglet.messages.facts import (
    FaultNoted,
    RegistrationFailed,
    RunnerLaunched,
    TokenSpent,
)
from miglet.messages.orders import ProvideRunner
from miglet.runner import metadata_firewall
from miglet.runner.environment import account_environment, proxy_environment
from miglet.runner.installation import forget_registration, registered
from miglet.runner.launcher import LAUNCH_SECONDS
from miglet.runner.launchers import configuration_launcher
from miglet.runner.outcome import Next, Outcome
from miglet.runner.registration import Configuration, Registration
from miglet.runner.release import REINSTALL
from miglet.runner.run import Run
from miglet.supervisor.failpoints import reach
from miglet.supervisor.privileges import Account, account
from miglet.workers.launching import description, launch
from miglet.workers.steps import (
    EXIT_STATUSES,
    POLL_SECONDS,
    Hopeless,
    Host,
    Steps,
    failure_of,
)
from miglet.workers.token_request import RegistrationTokens, digest

#: Registration tokens that one registration may use.
MOST_TOKENS = 3


class Registering:
    """One attempt to provide a runner, from the order to the launched Listener."""

    def __init__(self, host: Host, order: ProvideRunner) -> None:
        settings = host.settings
        self._host = host
        self._order = order
        self._directory = Path(settings.runner.directory)
        self._account: Account | None = None
        retry = settings.controller.retry
        self._backoff = Backoff(retry.initial_backoff, retry.max_backoff)
        self._began = time.time()
        self._attempts = 0
        self._token: RegistrationToken | None = None
        self._tokens = RegistrationTokens(host, order.name, order.spent_tokens)

    def run(self) -> Generator[float, None, Run]:
        """The whole way; returns the Run. Raises Hopeless when there is none."""
        try:
            self._account = account(self._host.settings.runner.user)
            self._refuse_danger()
            self._host.be_patient(metadata_firewall.LOAD_SECONDS)
            metadata_firewall.apply(self._host.settings, self._account)
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
                self._token = yield from self._tokens.next()
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
            runner_group=token.runner_group or "",
            environment=self._plain_environment(),
            account=self._account,
        )
        self._host.report(TokenSpent(digest(token)))
        launcher = configuration_launcher(self._host.settings)
        self._host.be_patient(LAUNCH_SECONDS)
        reach("configuration.starting")
        running = Configuration.start(launcher, wanted, token.token)
        reach("configuration.started")
        outcome = yield from self._seen_to_end(running)
        reach("configuration.ended")
        return outcome

    def _refuse_danger(self) -> None:
        """Hopeless where a job may have changed what would be started with a token."""
        danger = self._host.folder.danger(self._account, removing=False)
        if danger:
            message = f"no token is given to {self._directory}: {danger}"
            code, status = "runner_folder_changeable", EXIT_STATUSES["misconfig"]
            raise Hopeless(
                RegistrationFailed("misconfig", code, message, REINSTALL, status)
            )

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
            if self._tokens.count >= MOST_TOKENS:
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

    def _launch(self) -> Run:
        run = launch(self._host, self._order.name, self._account)
        self._host.report(RunnerLaunched(self.described(run)))
        return run

    def described(self, run: Run) -> dict[str, Any]:
        """What the arbiter remembers of the runner."""
        token, github = self._token, self._host.settings.github
        present = registered(self._directory)
        return {
            **description(run),
            "labels": list(token.labels if token and token.labels else github.labels),
            "runner_group": present.pool_name if present else None,
            "runner_url": token.runner_url if token else None,
            "attempts": max(1, self._attempts),
            "began": self._began,
        }

    def _plain_environment(self) -> dict[str, str]:
        proxy = proxy_environment(self._host.settings.runner.proxy)
        return account_environment(self._account, os.environ) | proxy


def refusal(outcome: Outcome) -> RegistrationFailed:
    """config.sh will not do it."""
    status = EXIT_STATUSES.get(outcome.category, UNAVAILABLE)
    return RegistrationFailed(
        outcome.category, outcome.kind, outcome.message, outcome.hint, status
    )
