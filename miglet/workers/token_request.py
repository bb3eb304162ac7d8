"""How a registration token is got: from the metadata once, else from the controller."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
from collections.abc import Generator, Iterable

from miglet.config.settings import Settings
from miglet.controller.answers import RegistrationToken
from miglet.errors import (
    ControllerError,
    ControllerUnreachable,
    MigletError,
    Refused,
)
from miglet.http.retry import Backoff
from miglet.messages.facts import ControllerAnswered, ControllerFailed, FaultNoted
from miglet.workers.asking import asked, expired, registration_token_in
from miglet.workers.steps import Hopeless, Host, failure_of

#: Most seconds that reading the token out of the metadata may take.
METADATA_SECONDS = 10.0


class Obtaining:
    """The tokens of one registration, one after the other."""

    def __init__(self, host: Host, spent: Iterable[str]) -> None:
        retry = host.settings.controller.retry
        self._host = host
        #: SHA-256 digests of tokens that were tried before.
        self._spent = frozenset(spent)
        self._backoff = Backoff(retry.initial_backoff, retry.max_backoff)
        #: How many tokens there were.
        self.count = 0

    def next(self) -> Generator[float, None, RegistrationToken]:
        """Another token, however long it takes; raises Hopeless where none is given."""
        while True:
            answer = yield from self._asked()
            if isinstance(answer, RegistrationToken):
                self.count += 1
                self._backoff.reset()
                return answer
            yield answer

    def _asked(self) -> Generator[float, None, RegistrationToken | float]:
        """A token, or the seconds until it is asked for again."""
        host, settings = self._host, self._host.settings
        given = yield from self._given()
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
            told = yield from asked(host, call, settings.controller.timeout)
            token = registration_token_in(told)
        except Refused as error:
            raise Hopeless(failure_of(error)) from error
        except ControllerError as error:
            return self._asked_in_vain(error.category, str(error), error)
        host.report(ControllerAnswered("registration-token", told.clock_offset_seconds))
        if expired(token, told.clock_offset_seconds):
            return self._asked_in_vain("transient", "the token had already expired")
        return token

    def _given(self) -> Generator[float, None, RegistrationToken | None]:
        """The token that the metadata had from the start, if it is of use still.

        It is used once; what refuses or outlives it is refreshed by the controller.
        """
        settings = self._host.settings
        if settings.github.token_source != "metadata" or self.count:
            return None
        # Here and not in the child: some of the files are root's alone.
        firmware = importlib.import_module("miglet.metadata.firmware")
        cloud = firmware.cloud_name(os.environ) or firmware.NONE
        environ = {**os.environ, firmware.CLOUD_VARIABLE: cloud}
        call = functools.partial(token_of_metadata, settings, environ)
        try:
            reply = yield from asked(self._host, call, METADATA_SECONDS)
            token = registration_token_in(reply)
        except ControllerError as error:
            told = f"{error}; the controller is asked instead"
            self._host.report(
                FaultNoted(error.category, "metadata_token", told, "runner")
            )
            return None
        return None if digest(token) in self._spent else token

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


def token_of_metadata(settings: Settings, environ: dict[str, str]) -> RegistrationToken:
    """The registration token in the metadata; for the child that requests tokens."""
    # Only that child pays for what reads metadata.
    tokens = importlib.import_module("miglet.metadata.tokens")
    try:
        return tokens.registration_token(settings, environ)
    except MigletError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise ControllerUnreachable(f"{error}{hint}") from error


def digest(token: RegistrationToken) -> str:
    """What is remembered of a token that was used."""
    return hashlib.sha256(token.token.encode()).hexdigest()
