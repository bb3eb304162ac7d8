"""Requests tokens in a short-lived child, which runs as the unprivileged user.

The runner-watcher is root and must not read what the network sends: it gets back a
token, checked field by field, or one of the errors below. The child also takes along
the 2.5 MB that a first HTTPS request costs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, field
from typing import Annotated, Any, TypedDict

from miglet.config.settings import Settings
from miglet.controller.answers import RegistrationToken, RemovalToken
from miglet.errors import (
    REFUSED,
    BadRegistration,
    ControllerError,
    ControllerUnreachable,
    CredentialUnusable,
    MigletError,
    Refused,
    Unauthenticated,
)
from miglet.formats import rfc3339
from miglet.http.retry import Backoff
from miglet.messages.codec import (
    Fact,
    Keys,
    Length,
    Range,
    WallTime,
    Word,
    frozen_value,
)
from miglet.messages.facts import (
    ClockOffset,
    ControllerAnswered,
    FaultNoted,
    RegistrationFailed,
)
from miglet.redaction import remember_secret
from miglet.supervisor import privileges
from miglet.supervisor.children import ChildTask, RunningTask
from miglet.supervisor.queues import Queue
from miglet.workers.failures import report_failure
from miglet.workers.steps import GivenUp, StepContext, failure_of

#: What the client's methods return here; None: the controller does without.
Token = RegistrationToken | RemovalToken | None

#: Seconds on top of the request's own limit after which the child counts as hung.
MARGIN_SECONDS = 2.0

#: Most seconds that reading the token out of the metadata may take.
METADATA_SECONDS = 10.0

#: Answers in a row with a token that cannot be used, until no more are asked for.
MOST_UNUSABLE = 3

log = logging.getLogger(__name__)


class RegistrationTokens:
    """The tokens of one registration, one after the other."""

    def __init__(
        self, context: StepContext, runner_name: str, spent: Iterable[str]
    ) -> None:
        retry = context.settings.controller.retry
        self._context = context
        self._runner_name = runner_name
        #: SHA-256 digests of tokens that were tried before.
        self._spent = frozenset(spent)
        self._backoff = Backoff(retry.initial_backoff, retry.max_backoff)
        #: Answers in a row whose token cannot be used.
        self._unusable = 0
        #: How many tokens there were.
        self.count = 0

    def next(self) -> Generator[float, None, RegistrationToken]:
        """Another token, however long it takes; raises GivenUp where none is given."""
        while True:
            answer = (yield from self._from_metadata()) or (
                yield from self._from_controller()
            )
            if isinstance(answer, RegistrationToken):
                self.count += 1
                self._backoff.reset()
                until = rfc3339(answer.expires_at) if answer.expires_at else "unknown"
                log.info(
                    "got a registration token for %s; expires: %s",
                    answer.runner_url,
                    until,
                )
                return answer
            yield answer

    def _from_controller(self) -> Generator[float, None, RegistrationToken | float]:
        """A token, or the seconds until it is asked for again."""
        context, settings = self._context, self._context.settings
        wanted = {
            "org_id": settings.org_id,
            "pool_id": settings.pool_id,
            "runner_group": settings.github.runner_group,
            "labels": list(settings.github.labels),
            "runner_name": self._runner_name,
        }
        call = functools.partial(
            context.client.registration_token, wanted, context.identity.trace_id
        )
        try:
            reply = yield from request_token(context, call, settings.controller.timeout)
            token = registration_token_in(reply)
        except Refused as error:
            raise GivenUp(failure_of(error)) from error
        except BadRegistration as error:
            return self._cannot_use("bad_registration", str(error), error.hint)
        except ControllerError as error:
            delay = self._backoff.delay(error)
            failures = self._backoff.failures
            report_failure(context, "registration-token", error, failures, delay)
            return delay
        offset = reply.clock_offset_seconds
        context.report(ControllerAnswered("registration-token", offset))
        if expired(token, offset):
            reason = "the controller's registration token had already expired"
            return self._cannot_use("registration_token_expired", reason, EXPIRED_HINT)
        return token

    def _cannot_use(self, code: str, reason: str, hint: str) -> float:
        """Seconds until another token is asked for; raises GivenUp at last."""
        self._unusable += 1
        if self._unusable >= MOST_UNUSABLE:
            failed = RegistrationFailed("permanent", code, reason, hint, REFUSED)
            raise GivenUp(failed)
        delay = self._backoff.delay()
        log.warning("%s; asking again in %.1f s", reason, delay)
        self._context.report(FaultNoted("permanent", code, reason, "controller", hint))
        return delay

    def _from_metadata(self) -> Generator[float, None, RegistrationToken | None]:
        """The token that the metadata had from the start, if it is of use still.

        It is used once; what refuses or outlives it is refreshed by the controller.
        """
        settings = self._context.settings
        if settings.github.token_source != "metadata" or self.count:
            return None
        # Here and not in the child: some of the files are root's alone.
        clouds = importlib.import_module("miglet.metadata.clouds")
        cloud = clouds.cloud_name(os.environ) or clouds.NONE
        environ = {**os.environ, clouds.CLOUD_VARIABLE: cloud}
        call = functools.partial(token_of_metadata, settings, environ)
        try:
            reply = yield from request_token(self._context, call, METADATA_SECONDS)
            token = registration_token_in(reply)
        except ControllerError as error:
            reason = f"{error}; the controller is asked instead"
            self._context.report(
                FaultNoted(error.category, "metadata_token", reason, "runner")
            )
            return None
        return None if digest(token) in self._spent else token


#: What to do about a token that has expired before it came.
EXPIRED_HINT = (
    "expires_at is judged by the header Date of the controller's answers; check both"
)


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


def expired(token: RegistrationToken, clock_offset_seconds: float | None) -> bool:
    """Whether the token is of no use any more by the controller's clock."""
    now = time.time() + (clock_offset_seconds or 0.0)
    return token.expires_at is not None and token.expires_at <= now


#: Most characters of a token, and of what comes with it: it becomes an environment
#: variable, and arguments.
TOKEN_CHARACTERS = 32 * 1024
Text = Annotated[str, Length(4096)]


class TokenFields(TypedDict):
    """A removal token."""

    token: Annotated[str, Word(TOKEN_CHARACTERS)]
    expires_at: WallTime | None


class RegistrationFields(TokenFields):
    """A registration token."""

    runner_url: Text
    runner_group: Text | None
    labels: list[Text]


@frozen_value
class TokenReply(Fact):
    """The controller's answer: a token of one kind, no token, or an error."""

    registration: (
        Annotated[dict[str, Any], Keys(RegistrationFields, closed=True)] | None
    ) = field(default=None, repr=False)
    removal: Annotated[dict[str, Any], Keys(TokenFields, closed=True)] | None = field(
        default=None, repr=False
    )
    #: The kind of the error, one of ERRORS; empty: there was none.
    error: str = ""
    reason: str = ""
    #: For a refusal: the HTTP status, and the beginning of the answer.
    status: Annotated[int, Range(0, 999)] = 0
    answer: str = ""
    #: Seconds that the controller asked to wait; null: it did not ask.
    retry_after: Annotated[float, Range(0, 300)] | None = None
    clock_offset_seconds: ClockOffset | None = None

    def raise_error(self) -> None:
        """Raise the error that the child has met, if any."""
        if self.error:
            raise ERRORS.get(self.error, _unreachable)(self)


def _unreachable(reply: TokenReply) -> ControllerError:
    return ControllerUnreachable(reply.reason, reply.retry_after)


#: The errors that a caller treats differently, and how each is made anew.
ERRORS: dict[str, Callable[[TokenReply], ControllerError]] = {
    "bad_registration": lambda reply: BadRegistration(reply.reason),
    "refused": lambda reply: Refused(reply.reason, reply.status, reply.answer),
    "unauthenticated": lambda reply: Unauthenticated(reply.reason),
    "credential_unusable": lambda reply: CredentialUnusable(reply.reason),
    "unreachable": _unreachable,
}

#: What stands in for the reply of a child that died or hung.
FAILED = TokenReply(
    error="unreachable", reason="the request failed or took too long; see MIGlet's log"
)


def request_token(
    context: StepContext, call: Callable[[], Token], seconds: float
) -> Generator[float, None, TokenReply]:
    """Make the request `call`, which takes up to `seconds`; returns the reply.

    Raises the ControllerError that it raises. Dropped on the way, the child is killed.
    """
    main = functools.partial(_request, context.client, call)
    task = ChildTask("token-request", main, seconds + MARGIN_SECONDS, FAILED)
    try:
        running = RunningTask(task)
    except OSError as error:
        raise ControllerUnreachable(f"cannot fork: {error}") from error
    context.listen(running, context.wake)
    try:
        replies: list[Fact] = []
        while not replies:
            yield max(0.0, running.deadline - time.monotonic())
            replies = [each for each in running.receive() if type(each) is TokenReply]
    finally:
        context.ignore(running)
        running.finish()
    (reply,) = replies
    assert isinstance(reply, TokenReply)
    reply.raise_error()
    return reply


def registration_token_in(reply: TokenReply) -> RegistrationToken:
    """The token that the child got, known here as the secret that it is."""
    fields = reply.registration
    if fields is None:
        raise ControllerUnreachable("the reply has no registration token")
    remember_secret(fields["token"])
    return RegistrationToken(**{**fields, "labels": tuple(fields["labels"])})


def _request(client: Any, call: Callable[[], Token], queue: Queue) -> None:
    """In the child, which touches the network and therefore is root no longer."""
    privileges.become(privileges.TASK_USER)
    try:
        token = call()
    except ControllerError as error:
        queue.put(_failure(error))
        return
    offset = client.clock_offset_seconds
    registration = asdict(token) if isinstance(token, RegistrationToken) else None
    removal = asdict(token) if isinstance(token, RemovalToken) else None
    queue.put(TokenReply(registration, removal, clock_offset_seconds=offset))


def _failure(error: ControllerError) -> TokenReply:
    if isinstance(error, Refused):
        return TokenReply(
            error="refused",
            reason=str(error),
            status=error.status,
            answer=error.answer,
        )
    if isinstance(error, BadRegistration):
        return TokenReply(error="bad_registration", reason=str(error))
    if isinstance(error, Unauthenticated):
        return TokenReply(error="unauthenticated", reason=str(error))
    if isinstance(error, CredentialUnusable):
        return TokenReply(error="credential_unusable", reason=str(error))
    retry_after = getattr(error, "retry_after", None)
    return TokenReply(error="unreachable", reason=str(error), retry_after=retry_after)
