"""What each answer of the controller means, for each call: one table.

A status is judged here and nowhere else. The tables in the contract's OpenAPI document
are generated from this one: ``python -m miglet.controller.contract``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NamedTuple, NoReturn

from miglet.errors import (
    BadAnswer,
    BadRegistration,
    ControllerError,
    ControllerUnreachable,
    Refused,
    Unauthenticated,
)
from miglet.formats import is_printable_word, parse_rfc3339, strict_json
from miglet.http.retry import retry_after
from miglet.http.transport import Answer, excerpt, host_of, phrase
from miglet.messages.codec import Value, frozen_value
from miglet.redaction import remember_secret

#: The most of a refusal's body that is kept with a rejected event.
LONGEST_REFUSAL = 1000

#: The longest body of a 2xx that is accepted without being JSON, in bytes.
LONGEST_TEXT = 1024

#: Expiry times before 1970-01-02 (the zero value of many languages) mean: no expiry.
EARLIEST_EXPIRY = 86_400.0


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
    """What an answer amounts to; the first four are not errors."""

    ACCEPTED = enum.auto()
    #: The controller stored this event before.
    DUPLICATE = enum.auto()
    #: The controller has the event, but does not accept what it announces yet.
    NOT_YET = enum.auto()
    #: The controller does not offer this call.
    ABSENT = enum.auto()
    #: The same request may succeed later.
    LATER = enum.auto()
    #: Our credential is not accepted (yet), also after it was read again.
    DENIED = enum.auto()
    #: Final.
    REFUSED = enum.auto()
    #: Redirected to a place where we do not go.
    REDIRECTED = enum.auto()
    #: The answer is not the controller's, e.g. the login page of a captive portal.
    FOREIGN = enum.auto()


class Body(NamedTuple):
    """A condition on the body of an answer."""

    #: In the words of the contract's table.
    text: str
    #: Whether it holds for this answer to an event of this type ("" for other calls).
    applies: Callable[[Answer, str], bool]


class Rule(NamedTuple):
    """One row of a call's table; the first row that applies decides."""

    #: A status, or a class of them such as ``4xx``.
    status: str
    outcome: Outcome
    #: What MIGlet does, in the words of the contract's table.
    consequence: str
    #: None: whatever the body says.
    body: Body | None = None

    def applies(self, answer: Answer, event_type: str) -> bool:
        """Whether this row is about this answer."""
        if self.status not in (str(answer.status), f"{answer.status // 100}xx"):
            return False
        return self.body is None or self.body.applies(answer, event_type)


def is_html(answer: Answer, _event_type: str = "") -> bool:
    """Whether a body is a web page, by its type or because it begins with ``<``."""
    body = answer.body.removeprefix(b"\xef\xbb\xbf").strip()
    return bool(body) and (media_type(answer) == "text/html" or body.startswith(b"<"))


def media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def is_unreadable(answer: Answer, _event_type: str) -> bool:
    """Whether a body is neither JSON nor a short text; JSON that is torn is neither."""
    is_text = len(answer.body) <= LONGEST_TEXT and is_utf8(answer.body)
    if not answer.body.strip() or (is_text and "json" not in media_type(answer)):
        return False
    try:
        strict_json(answer.body)
    except ValueError:
        return True
    return False


def is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def object_in(answer: Answer) -> Mapping[str, Any]:
    """The JSON object in a body; empty if the body is something else."""
    try:
        values = strict_json(answer.body)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def is_not_yet(answer: Answer, event_type: str) -> bool:
    """Whether the controller has VMStarted, but does not want the machine yet."""
    return event_type == "VMStarted" and object_in(answer).get("acknowledged") is False


def is_duplicate(answer: Answer, _event_type: str) -> bool:
    """Whether the controller says that it stored the event before."""
    return object_in(answer).get("duplicate") is True


HTML = Body("HTML (`text/html`, or it begins with `<`)", is_html)
UNREADABLE = Body(
    "neither JSON nor, of another `Content-Type`, a text of at most 1 KiB",
    is_unreadable,
)
NOT_ACKNOWLEDGED = Body('`{"acknowledged": false}`, `VMStarted` only', is_not_yet)
STORED_BEFORE = Body('`{"duplicate": true}`', is_duplicate)

REPEATED = "repeated with back-off"
RETRY_AFTER = "repeated with back-off, not before `Retry-After`"
REREAD = "the credential is read again and the request repeated; then repeated slowly"
ENDS_MACHINE = "final: the machine reports an `Error` and ends with exit status 77"
ABANDONED = "final: the registration is left to the controller"


def rows(consequence: str, *of_call: Rule, refusal: Rule) -> tuple[Rule, ...]:
    """A call's table: `consequence` is that of a good answer, `of_call` goes first."""
    return (
        Rule("2xx", Outcome.FOREIGN, REPEATED, HTML),
        *of_call,
        Rule("2xx", Outcome.ACCEPTED, consequence),
        Rule("3xx", Outcome.REDIRECTED, "not followed; " + REPEATED),
        Rule("401", Outcome.DENIED, REREAD),
        Rule("408", Outcome.LATER, RETRY_AFTER),
        Rule("429", Outcome.LATER, RETRY_AFTER),
        refusal,
        Rule("5xx", Outcome.LATER, RETRY_AFTER),
    )


#: Each call's table; a status that no row names is LATER.
TABLE: dict[Call, tuple[Rule, ...]] = {
    Call.REGISTRATION_TOKEN: rows(
        "the token is used; a body that is not as its schema says is asked for again",
        refusal=Rule("4xx", Outcome.REFUSED, ENDS_MACHINE),
    ),
    Call.REMOVAL_TOKEN: rows(
        "the token is used",
        Rule("404", Outcome.ABSENT, "the controller removes the runner itself"),
        refusal=Rule("4xx", Outcome.REFUSED, ABANDONED),
    ),
    Call.EVENT: rows(
        "acknowledged, whatever the body says: the event counts as delivered",
        Rule("2xx", Outcome.FOREIGN, REPEATED, UNREADABLE),
        Rule("2xx", Outcome.NOT_YET, "not yet: " + REPEATED, NOT_ACKNOWLEDGED),
        Rule("409", Outcome.DUPLICATE, "counts as delivered", STORED_BEFORE),
        Rule("409", Outcome.LATER, RETRY_AFTER),
        refusal=Rule(
            "4xx",
            Outcome.REFUSED,
            "`VMStarted`: the machine ends with exit status 77; another event counts"
            " as rejected, and the next one is sent",
        ),
    ),
    Call.HEARTBEAT: rows(
        "accepted, whatever the body says",
        Rule("2xx", Outcome.FOREIGN, REPEATED, UNREADABLE),
        Rule("403", Outcome.DENIED, "the next heartbeat is sent when it is due"),
        refusal=Rule("4xx", Outcome.LATER, "the next heartbeat is sent when it is due"),
    ),
    Call.COMMANDS: rows(
        "the commands are taken; an empty body, `{}` or a bare list will do",
        Rule("403", Outcome.DENIED, REPEATED),
        refusal=Rule("4xx", Outcome.LATER, REPEATED),
    ),
}


@frozen_value
class RegistrationToken(Value):
    """What a runner needs in order to register; the token is short-lived."""

    token: str = field(repr=False)
    #: Wall time at which the token expires; None: the controller does not know.
    expires_at: float | None
    runner_url: str
    #: None: GitHub's default group.
    runner_group: str | None
    labels: tuple[str, ...]


@frozen_value
class RemovalToken(Value):
    """What removes a runner's registration."""

    token: str = field(repr=False)
    #: Wall time at which the token expires; None: the controller does not know.
    expires_at: float | None


def outcome(call: Call, answer: Answer, event_type: str = "") -> Outcome:
    """What the table says; LATER for a status that no row names."""
    for rule in TABLE[call]:
        if rule.applies(answer, event_type):
            return rule.outcome
    return Outcome.LATER


def check(call: Call, answer: Answer, event_type: str = "") -> Outcome:
    """The outcome of an answer; raises the error for one that is an error."""
    found = outcome(call, answer, event_type)
    if found in ERRORS:
        raise ERRORS[found](describe(answer), answer)
    return found


def describe(answer: Answer) -> str:
    """The status in words, and the beginning of the body."""
    words = excerpt(answer.body.decode("utf-8", errors="replace"))
    return f"{answer.status} {phrase(answer.status)}" + (f": {words}" if words else "")


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


def foreign(reason: str, _answer: Answer) -> ControllerError:
    return BadAnswer(f"not an answer of the controller: {reason}")


ERRORS: dict[Outcome, Callable[[str, Answer], ControllerError]] = {
    Outcome.LATER: later,
    Outcome.DENIED: denied,
    Outcome.REFUSED: refused,
    Outcome.REDIRECTED: redirected,
    Outcome.FOREIGN: foreign,
}


#: What JSON calls a Python type.
KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class Fields:
    """The fields of one answer, an object; raises BadAnswer naming the field."""

    def __init__(
        self, body: bytes, source: str = "the answer", list_as: str = ""
    ) -> None:
        #: Where the object came from, for the error.
        self.source = source
        self.values = self._object(body, list_as)

    def text(self, name: str) -> str:
        """A field that has to be there and to say something."""
        value = self.of_kind(name, str)
        if not value:
            self.wrong(name, "empty")
        return value

    def word(self, name: str) -> str:
        """A text that can travel in a header or an environment: printable ASCII."""
        value = self.text(name)
        if not is_printable_word(value):
            self.wrong(name, "not one printable ASCII word")
        return value

    def text_or_null(self, name: str) -> str | None:
        """A text; None where it is null or missing."""
        return None if self.values.get(name) is None else self.of_kind(name, str)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where it is null or missing."""
        values = self.list(name)
        for value in values:
            if not isinstance(value, str):
                self.wrong(name, f"holds {kind(value)}, text expected")
        return tuple(values)

    def list(self, name: str) -> list[Any]:
        """A list of anything; empty where it is null or missing."""
        return [] if self.values.get(name) is None else self.of_kind(name, list)

    def instant_or_null(self, name: str) -> float | None:
        """A time as Unix seconds; None where it is null, missing or empty."""
        text = self.text_or_null(name)
        if not text:
            return None
        at = parse_rfc3339(text)
        if at is None:
            self.wrong(name, "not a time such as 2026-01-15T10:30:00Z")
        return at

    def present(self, name: str) -> Any:
        if name not in self.values:
            self.wrong(name, "missing")
        return self.values[name]

    def of_kind(self, name: str, expected: type) -> Any:
        value = self.present(name)
        if not isinstance(value, expected):
            self.wrong(name, f"{kind(value)}, {KINDS[expected]} expected")
        return value

    def wrong(self, name: str, reason: str) -> NoReturn:
        raise BadAnswer(f"{self.source}: {name}: {reason}")

    def _object(self, body: bytes, list_as: str) -> dict[str, Any]:
        try:
            values = strict_json(body)
        except ValueError as error:
            reason = f"{type(error).__name__}: not JSON that we take"
            raise BadAnswer(f"{self.source}: {reason}") from None
        if list_as and isinstance(values, list):
            return {list_as: values}
        if not isinstance(values, dict):
            reason = f"{kind(values)}, an object expected"
            raise BadAnswer(f"{self.source}: {reason}")
        return values


def kind(value: object) -> str:
    return KINDS[type(value)]


def registration_token(body: bytes) -> RegistrationToken:
    """The token; raises BadRegistration if config.sh would misread its companions."""
    fields = Fields(body)
    token = fields.word("registration_token")
    remember_secret(token)
    return RegistrationToken(
        token=token,
        expires_at=expiry(fields),
        runner_url=fields.word("runner_url"),
        runner_group=usable_group(fields.text_or_null("runner_group")),
        labels=usable_labels(fields.texts("labels")),
    )


#: What config.sh takes for a label: it splits at commas, and drops a value that begins
#: with a dash.
LABEL = re.compile(r"[^,\x00-\x1f\x7f-][^,\x00-\x1f\x7f]{0,255}")
GROUP = re.compile(r"[^\x00-\x1f\x7f-][^\x00-\x1f\x7f]{0,127}")


def usable_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels; raises BadRegistration naming the first that cannot be used."""
    for label in labels:
        if not LABEL.fullmatch(label):
            expected = (
                "1 to 256 characters, no comma, no control character, no dash first"
            )
            raise BadRegistration(f"label {label[:80]!r} cannot be used: {expected}")
    return labels


def usable_group(group: str | None) -> str | None:
    """The group, None for null or empty; raises BadRegistration naming a bad one."""
    if group and not GROUP.fullmatch(group):
        expected = "1 to 128 characters, no control character"
        reason = f"runner group {group[:80]!r} cannot be used: expected {expected}"
        raise BadRegistration(f"{reason}, not beginning with a dash")
    return group or None


def removal_token(body: bytes) -> RemovalToken:
    fields = Fields(body)
    token = fields.word("removal_token")
    remember_secret(token)
    return RemovalToken(token, expiry(fields))


def expiry(fields: Fields) -> float | None:
    """``expires_at`` as Unix seconds; None where there is no expiry.

    Null, an empty text and a time before 1970-01-02 all mean that.
    """
    at = fields.instant_or_null("expires_at")
    return None if at is None or at < EARLIEST_EXPIRY else at


def commands(answer: Answer, vm_id: str) -> list[object]:
    """The commands as they came, each still to be validated."""
    if not answer.body.strip():
        return []
    fields = Fields(answer.body, list_as="commands")
    if fields.values.get("vm_id") is not None and fields.text("vm_id") != vm_id:
        fields.wrong("vm_id", "names another machine")
    if fields.values and "commands" not in fields.values:
        fields.wrong("commands", "missing")
    return fields.list("commands")
