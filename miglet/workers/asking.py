"""Requests tokens in a short-lived child, which runs as the unprivileged user.

The runner-watcher is root and must not read what the network sends: it gets back a
token, checked field by field, or one of the errors below. The child also takes along
the 2.5 MB that a first HTTPS request costs.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypedDict

from miglet.controller.answers import RegistrationToken, RemovalToken
from miglet.errors import (
    ControllerError,
    ControllerUnreachable,
    CredentialUnusable,
    Refused,
    Unauthenticated,
)
from miglet.messages.codec import Fact, Keys, Range, WallTime
from miglet.messages.facts import ClockOffset
from miglet.redaction import remember_secret
from miglet.supervisor import confinement
from miglet.supervisor.children import ChildTask, RunningTask
from miglet.supervisor.queues import Queue
from miglet.workers.steps import Host

#: What the client's methods return here; None: the controller does without.
Token = RegistrationToken | RemovalToken | None

#: Seconds on top of the request's own limit after which the child counts as hung.
MARGIN_SECONDS = 2.0


class TokenFields(TypedDict):
    """A removal token."""

    token: str
    expires_at: WallTime | None


class RegistrationFields(TokenFields):
    """A registration token."""

    runner_url: str
    runner_group: str | None
    labels: list[str]


@dataclass(frozen=True, repr=False, eq=False)
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
    "refused": lambda reply: Refused(reply.reason, reply.status, reply.answer),
    "unauthenticated": lambda reply: Unauthenticated(reply.reason),
    "credential_unusable": lambda reply: CredentialUnusable(reply.reason),
    "unreachable": _unreachable,
}

#: What stands in for the reply of a child that died or hung.
FAILED = TokenReply(
    error="unreachable", reason="the request failed or took too long; see MIGlet's log"
)


def asked(
    host: Host, call: Callable[[], Token], seconds: float
) -> Generator[float, None, TokenReply]:
    """Make the request `call`, which takes up to `seconds`; returns the reply.

    Raises the ControllerError that it raises. Dropped on the way, the child is killed.
    """
    main = functools.partial(_request, host.client, call)
    task = ChildTask("token-request", main, seconds + MARGIN_SECONDS, FAILED)
    try:
        running = RunningTask(task)
    except OSError as error:
        raise ControllerUnreachable(f"cannot fork: {error}") from error
    host.listen(running, host.wake)
    try:
        replies: list[Fact] = []
        while not replies:
            yield max(0.0, running.deadline - time.monotonic())
            replies = [each for each in running.receive() if type(each) is TokenReply]
    finally:
        host.ignore(running)
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


def expired(token: RegistrationToken, clock_offset_seconds: float | None) -> bool:
    """Whether the token is of no use any more by the controller's clock."""
    now = time.time() + (clock_offset_seconds or 0.0)
    return token.expires_at is not None and token.expires_at <= now


def _request(client: Any, call: Callable[[], Token], queue: Queue) -> None:
    """In the child, which touches the network and therefore is root no longer."""
    confinement.become_miglet()
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
    if isinstance(error, Unauthenticated):
        return TokenReply(error="unauthenticated", reason=str(error))
    if isinstance(error, CredentialUnusable):
        return TokenReply(error="credential_unusable", reason=str(error))
    retry_after = getattr(error, "retry_after", None)
    return TokenReply(error="unreachable", reason=str(error), retry_after=retry_after)
