"""Asks the controller in a short-lived child: what a request takes up ends with it.

A worker that makes a request of its own has 2.5 MB more to itself from then on, for
as long as it lives. The one rule: a caller gets what the call in the child has
returned, or the error that it raised there, as if it had made the call itself.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from miglet.controller.answers import RegistrationToken, RemovalToken
from miglet.controller.client import Client
from miglet.errors import BadMessage, ControllerError, ControllerUnreachable
from miglet.messages.codec import Message
from miglet.redaction import remember_secret
from miglet.supervisor import confinement
from miglet.supervisor.children import Child
from miglet.supervisor.queues import Queue

#: What the client's methods return here; None: the controller does without.
Token = RegistrationToken | RemovalToken | None

#: Seconds between two looks at the child.
LOOK_SECONDS = 0.01

#: Seconds on top of the request's own limit after which the child counts as hung.
MARGIN_SECONDS = 2.0


@dataclass(frozen=True)
class Told(Message):
    """What the child has to say: a token, none, or why there is no answer."""

    token: dict[str, Any] | None = field(default=None, repr=False)
    error: dict[str, Any] | None = None
    clock_offset_seconds: float | None = None


def asked(
    client: Client, call: Callable[[], Token], seconds: float
) -> Generator[float, None, Told]:
    """What `call`, a request of `client` that takes up to `seconds`, comes to.

    Raises the ControllerError that it raises. Dropped on the way, the child goes.
    """
    try:
        child = Child("token-request", functools.partial(_ask, client, call))
    except OSError as error:
        raise ControllerUnreachable(f"cannot fork: {error}") from error
    deadline = time.monotonic() + seconds + MARGIN_SECONDS
    try:
        while (told := _heard(child)) is None:
            if time.monotonic() >= deadline:
                raise ControllerUnreachable("the request does not come to an end")
            yield LOOK_SECONDS
    finally:
        child.signal(signal.SIGKILL)
        child.bury()
    if told.error:
        raise _raised(told.error)
    return told


def registration_token_in(told: Told) -> RegistrationToken:
    """The token that the child got, known here as the secret that it is."""
    assert told.token
    remember_secret(told.token["token"])
    return RegistrationToken(**{**told.token, "labels": tuple(told.token["labels"])})


def expired(token: RegistrationToken, clock_offset_seconds: float | None) -> bool:
    """Whether the token is of no use any more by the controller's clock."""
    now = time.time() + (clock_offset_seconds or 0.0)
    return token.expires_at is not None and token.expires_at <= now


def _heard(child: Child) -> Told | None:
    try:
        heard = child.queue.drain()
    except BadMessage as error:
        raise ControllerUnreachable(f"the request has failed: {error}") from error
    return next((each for each in heard if isinstance(each, Told)), None)


def _ask(client: Client, call: Callable[[], Token], queue: Queue) -> None:
    """In the child, which touches the network and therefore is root no longer."""
    confinement.become_miglet()
    try:
        token = call()
    except ControllerError as error:
        kind, reason = type(error).__name__, str(error)
        queue.put(Told(error={"kind": kind, "reason": reason, **vars(error)}))
    else:
        offset = client.clock_offset_seconds
        told = asdict(token) if token else None
        queue.put(Told(told, clock_offset_seconds=offset))


def _raised(told: dict[str, Any]) -> ControllerError:
    """The error in the child, of its own class, and with its attributes."""
    kinds = {kind.__name__: kind for kind in _kinds(ControllerError)}
    attributes = {**told}
    kind = kinds[attributes.pop("kind")]
    error = kind.__new__(kind, attributes.pop("reason"))
    vars(error).update(attributes)
    return error


def _kinds(kind: type[ControllerError]) -> Iterator[type[ControllerError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)
