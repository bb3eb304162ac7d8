"""What each answer of the controller means, for each call: one table.

The one rule: a status is judged here and nowhere else. An event is never given up
for 401, 403, 408 or 429, which say something about us or the moment, not about it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from miglet.controller.fields import Fields
from miglet.controller.retry import retry_after
from miglet.controller.transport import Answer, excerpt
from miglet.errors import (
    BadAnswer,
    ControllerError,
    ControllerUnreachable,
    Refused,
    Unauthenticated,
)
from miglet.security import remember_secret

#: The most of a refusal's body that is kept with a rejected event.
LONGEST_REFUSAL = 1000

#: What a ``status`` says that acknowledges; any other says otherwise.
ACKNOWLEDGING = {"acknowledged", "received", "accepted", "duplicate", "ok"}


class Call(enum.Enum):
    """The calls of the contract, each as method and last part of the path."""

    REGISTRATION_TOKEN = "POST registration-token"
    REMOVAL_TOKEN = "POST removal-token"
    EVENT = "POST events"
    HEARTBEAT = "POST heartbeat"
    COMMANDS = "GET commands"

    @property
    def method(self) -> str:
        return self.value.split()[0]

    @property
    def path(self) -> str:
        return self.value.split()[1]


class Outcome(enum.Enum):
    """What an answer comes to; the first three are no errors."""

    TAKEN = enum.auto()
    #: The controller had this event already.
    DUPLICATE = enum.auto()
    #: The controller does not offer this call.
    ABSENT = enum.auto()
    #: Not now; the same again later.
    LATER = enum.auto()
    #: Our credential is not accepted (yet); the same again, slowly.
    DENIED = enum.auto()
    #: No, also the next time.
    REFUSED = enum.auto()
    #: Somebody sends us elsewhere, where we do not go.
    REDIRECTED = enum.auto()


#: What holds for every call, unless its own row says otherwise.
EVERY_CALL: dict[int | str, Outcome] = {
    "2xx": Outcome.TAKEN,
    "3xx": Outcome.REDIRECTED,
    401: Outcome.DENIED,
    408: Outcome.LATER,
    429: Outcome.LATER,
    "5xx": Outcome.LATER,
}

#: Call and status (or its class, where the status has no entry) to outcome.
OUTCOMES: dict[Call, dict[int | str, Outcome]] = {
    Call.REGISTRATION_TOKEN: {**EVERY_CALL, "4xx": Outcome.REFUSED},
    Call.REMOVAL_TOKEN: {
        **EVERY_CALL,
        404: Outcome.ABSENT,
        "4xx": Outcome.REFUSED,
    },
    Call.EVENT: {
        **EVERY_CALL,
        403: Outcome.DENIED,
        409: Outcome.DUPLICATE,
        "4xx": Outcome.REFUSED,
    },
    Call.HEARTBEAT: {**EVERY_CALL, 403: Outcome.DENIED, "4xx": Outcome.LATER},
    Call.COMMANDS: {**EVERY_CALL, 403: Outcome.DENIED, "4xx": Outcome.LATER},
}


@dataclass(frozen=True)
class RegistrationToken:
    """What a runner needs in order to register; the token is short-lived."""

    token: str = field(repr=False)
    #: Wall time at which the token expires; None: the controller does not know.
    expires_at: float | None
    runner_url: str
    #: None: GitHub's default group.
    runner_group: str | None
    labels: tuple[str, ...]


@dataclass(frozen=True)
class RemovalToken:
    """What removes a runner's registration."""

    token: str = field(repr=False)
    #: Wall time at which the token expires; None: the controller does not know.
    expires_at: float | None


@dataclass(frozen=True)
class Acknowledgement:
    """The controller has the event and answers for it from now on."""

    #: False: the body says that what the event announces is not accepted yet.
    acknowledged: bool
    #: The controller had this event before (409).
    duplicate: bool


def outcome(call: Call, status: int) -> Outcome:
    """The table's entry; a status that HTTP does not know is LATER."""
    row = OUTCOMES[call]
    return row.get(status) or row.get(f"{status // 100}xx") or Outcome.LATER


def judged(call: Call, answer: Answer) -> Outcome:
    """TAKEN, DUPLICATE or ABSENT; raises the error that any other outcome is."""
    judgement = outcome(call, answer.status)
    if judgement in ERRORS:
        raise ERRORS[judgement](f"{call.value}: {told(answer)}", answer)
    return judgement


def told(answer: Answer) -> str:
    """The status in words, and the beginning of what the controller wrote."""
    words = excerpt(answer.body.decode("utf-8", errors="replace"))
    return f"{answer.status} {phrase(answer.status)}" + (f": {words}" if words else "")


def phrase(status: int) -> str:
    known = {member.value: member.phrase for member in HTTPStatus}
    return known.get(status, "(unknown status)")


def later(reason: str, answer: Answer) -> ControllerError:
    headers = answer.headers
    asked = retry_after(headers.get("Retry-After"), headers.get("Date"))
    return ControllerUnreachable(reason, asked)


def denied(reason: str, _answer: Answer) -> ControllerError:
    return Unauthenticated(reason)


def refused(reason: str, answer: Answer) -> ControllerError:
    text = answer.body.decode("utf-8", errors="replace")
    return Refused(reason, answer.status, excerpt(text, LONGEST_REFUSAL))


def redirected(reason: str, answer: Answer) -> ControllerError:
    host = host_of(answer.headers.get("Location", ""))
    return BadAnswer(f"{reason}: redirect to {host} not followed")


def host_of(location: str) -> str:
    """Where a redirect leads, without user name and password."""
    try:
        host = urlsplit(location).netloc.rpartition("@")[2]
    except ValueError:
        return "an unreadable address"
    return excerpt(host) or "another path"


ERRORS: dict[Outcome, Callable[[str, Answer], ControllerError]] = {
    Outcome.LATER: later,
    Outcome.DENIED: denied,
    Outcome.REFUSED: refused,
    Outcome.REDIRECTED: redirected,
}


def registration_token(body: bytes) -> RegistrationToken:
    fields = Fields(Call.REGISTRATION_TOKEN.value, body)
    token = fields.word("registration_token")
    remember_secret(token)
    return RegistrationToken(
        token=token,
        expires_at=fields.instant_or_null("expires_at"),
        runner_url=fields.word("runner_url"),
        runner_group=fields.text_or_null("runner_group") or None,
        labels=fields.texts("labels"),
    )


def removal_token(body: bytes) -> RemovalToken:
    fields = Fields(Call.REMOVAL_TOKEN.value, body)
    token = fields.word("removal_token")
    remember_secret(token)
    return RemovalToken(token, fields.instant_or_null("expires_at"))


def acknowledgement(body: bytes) -> Acknowledgement:
    """What a 2xx to an event says: yes, unless the body says otherwise."""
    if not body.strip():
        return Acknowledgement(acknowledged=True, duplicate=False)
    fields = Fields(Call.EVENT.value, body)
    duplicate = fields.values.get("duplicate") is True
    return Acknowledgement(says_yes(fields), duplicate)


def says_yes(fields: Fields) -> bool:
    """``acknowledged`` decides, else ``status``; a body with neither says yes."""
    if fields.values.get("acknowledged") is not None:
        return fields.of_kind("acknowledged", bool)
    status = fields.values.get("status")
    return not isinstance(status, str) or status.lower() in ACKNOWLEDGING


def commands(answer: Answer, vm_id: str) -> list[object]:
    """The commands as they came, each to be validated by whoever obeys it."""
    if answer.status == HTTPStatus.NO_CONTENT:
        return []
    fields = Fields(Call.COMMANDS.value, answer.body)
    if fields.values.get("vm_id") is not None and fields.text("vm_id") != vm_id:
        fields.wrong("vm_id", "names another machine")
    return fields.list("commands")


def beat_taken(body: bytes) -> None:
    """Raises BadAnswer when a heartbeat's 2xx is not the controller's."""
    if body.strip():
        Fields(Call.HEARTBEAT.value, body)
