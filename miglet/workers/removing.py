"""How a registration that was not used up is taken back.

An ephemeral runner that did its job has removed its own registration; a controller
without removal tokens removes the runner when it hears that the machine shuts down.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Generator
from pathlib import Path

from miglet.controller.client import RemovalToken
from miglet.errors import ControllerError, MigletError
from miglet.messages.facts import ControllerFailed
from miglet.redaction import remember_secret
from miglet.runner.environment import account_environment, proxy_environment
from miglet.runner.installation import forget_registration, registered
from miglet.runner.launcher import LAUNCH_SECONDS
from miglet.runner.launchers import configuration_launcher
from miglet.runner.registration import Configuration
from miglet.supervisor.failpoints import reach
from miglet.supervisor.privileges import account
from miglet.workers.steps import POLL_SECONDS, Host
from miglet.workers.token_request import request_token

#: Most seconds that the removal token and config.sh may take, each.
REMOVAL_SECONDS = 5.0


class Removing:
    """One attempt to leave no registration behind; the end does not wait for more."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._directory = Path(host.settings.runner.directory)

    def run(self) -> Generator[float, None, str]:
        """The whole way; returns what came of it, for people."""
        if registered(self._directory) is None:
            return "there was no registration left"
        danger = self._danger()
        if danger:
            forget_registration(self._directory)
            return f"left to the controller: {danger}"
        reach("removal.asking")
        token = yield from self._token()
        reach("removal.asked")
        if isinstance(token, str):
            forget_registration(self._directory)
            return token
        try:
            return (yield from self._removed(token))
        except MigletError as error:
            return f"config.sh remove could not be run: {error}"

    def _danger(self) -> str:
        """Why no removal token may be given to config.sh; empty: it may."""
        try:
            who = account(self._host.settings.runner.user)
        except MigletError as error:
            return str(error)
        return self._host.folder.danger(who, removing=True)

    def _token(self) -> Generator[float, None, RemovalToken | str]:
        """The token, or why there is none."""
        host = self._host
        wanted = {"org_id": host.settings.org_id, "pool_id": host.settings.pool_id}
        call = functools.partial(
            host.client.removal_token, wanted, host.identity.trace_id
        )
        try:
            reply = yield from request_token(
                host, call, host.settings.controller.timeout
            )
        except ControllerError as error:
            host.report(
                ControllerFailed("removal-token", error.category, str(error), 0)
            )
            return f"no removal token: {error}"
        if reply.removal is None:
            return "the controller removes the runner itself"
        return RemovalToken(**reply.removal)

    def _removed(self, token: RemovalToken) -> Generator[float, None, str]:
        remember_secret(token.token)
        who = account(self._host.settings.runner.user)
        proxy = proxy_environment(self._host.settings.runner.proxy)
        self._host.be_patient(LAUNCH_SECONDS)
        running = Configuration.remove(
            configuration_launcher(self._host.settings),
            self._directory,
            account_environment(who, os.environ) | proxy,
            who,
            token.token,
        )
        deadline = time.monotonic() + REMOVAL_SECONDS
        while (outcome := running.poll()) is None:
            if time.monotonic() >= deadline:
                outcome = running.kill()
                break
            yield POLL_SECONDS
        reach("removal.ended")
        return "removed" if outcome.good else f"not removed: {outcome.message}"
