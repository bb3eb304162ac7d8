"""The controller's API as methods: the only code that knows its addresses.

Each call is one attempt with a limit on its whole time; trying again is up to the
worker that called, by `retry.Backoff`. The one rule: what is raised is one of
``errors.ControllerError``, and the client can be used again afterwards.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

import requests

from miglet import __version__
from miglet.controller import answers
from miglet.controller.answers import (
    Call,
    Outcome,
    RegistrationToken,
    RemovalToken,
)
from miglet.controller.credentials import credential_for
from miglet.errors import ControllerError
from miglet.formats import parse_http_date
from miglet.http.transport import Answer, Transport, excerpt, within

#: A long poll may take so much longer than it asks to be held, in seconds.
LONGEST_POLL_GRACE = 10.0


class Client:
    """The MIG Controller, seen from the machine `vm_id`.

    `settings` is the configuration's ``controller`` section. Nothing is opened
    before the first call, so that a client may be made before a fork.
    """

    def __init__(
        self, settings: Any, vm_id: str, transport: Transport | None = None
    ) -> None:
        self._vm_id = vm_id
        self._clock = ClockOffset()
        self._settings = settings
        self._credential = credential_for(settings.auth)
        self._transport = transport or Transport(settings)

    def registration_token(
        self, request: Mapping[str, Any], trace_id: str | None = None
    ) -> RegistrationToken:
        """A token to register a runner with; `request` as in the contract."""
        with self._target(Call.REGISTRATION_TOKEN):
            answer = self._post(Call.REGISTRATION_TOKEN, request, trace_id)
            answers.check(Call.REGISTRATION_TOKEN, answer)
            return answers.registration_token(answer.body)

    def removal_token(
        self, request: Mapping[str, Any], trace_id: str | None = None
    ) -> RemovalToken | None:
        """A token to remove the runner with; None: the controller removes it itself."""
        with self._target(Call.REMOVAL_TOKEN):
            answer = self._post(Call.REMOVAL_TOKEN, request, trace_id)
            if answers.check(Call.REMOVAL_TOKEN, answer) is Outcome.ABSENT:
                return None
            return answers.removal_token(answer.body)

    def post_event(self, event: Mapping[str, Any]) -> bool:
        """Deliver one event; raises Refused when it will never be accepted.

        False: the controller has the event, but does not accept what it announces yet.
        """
        with self._target(Call.EVENT):
            key = {"Idempotency-Key": event["id"]}
            answer = self._post(Call.EVENT, event, event.get("trace_id"), key)
            found = answers.check(Call.EVENT, answer, event["type"])
            return found is not Outcome.NOT_YET

    def heartbeat(
        self, heartbeat: Mapping[str, Any], trace_id: str | None = None
    ) -> None:
        """Deliver a heartbeat; returns when the controller accepted it."""
        with self._target(Call.HEARTBEAT):
            answer = self._post(Call.HEARTBEAT, heartbeat, trace_id)
            answers.check(Call.HEARTBEAT, answer)

    def commands(self, wait: float, trace_id: str | None = None) -> list[object]:
        """The commands as they came; the answer may take `wait` seconds."""
        with self._target(Call.COMMANDS):
            url = f"{self._url(Call.COMMANDS)}?wait={wait:g}"
            seconds = wait + min(self._settings.timeout, LONGEST_POLL_GRACE)
            request = requests.Request("GET", url, headers=common_headers(trace_id))
            answer = self._answer(request, seconds)
            answers.check(Call.COMMANDS, answer)
            return answers.commands(answer, self._vm_id)

    @property
    def clock_offset_seconds(self) -> float | None:
        """The controller's clock minus ours; None before the first answer."""
        return self._clock.seconds

    def apply(self, settings: Any) -> None:
        """Use changed settings from the next call on; a kept connection if it fits."""
        former, self._settings = self._settings, settings
        if address(former) == address(settings):
            return
        self.close()
        self._credential = credential_for(settings.auth)
        self._transport = Transport(settings)

    def close(self) -> None:
        """Drop the connection; the next call opens a new one."""
        self._transport.close()

    @contextlib.contextmanager
    def _target(self, call: Call) -> Iterator[None]:
        """Name the request in every error of the call."""
        try:
            yield
        except ControllerError as error:
            error.target = f"{call.method} {excerpt(self._url(call))}"
            raise

    def _url(self, call: Call) -> str:
        base = self._settings.endpoint.rstrip("/")
        return f"{base}/api/v1/vms/{quote(self._vm_id, safe='')}/{call.path}"

    def _post(
        self,
        call: Call,
        body: Mapping[str, Any],
        trace_id: str | None,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = {"Content-Type": "application/json", **common_headers(trace_id)}
        headers.update(more_headers or {})
        content = json.dumps(body, separators=(",", ":"), allow_nan=False)
        request = requests.Request(
            call.method, self._url(call), headers=headers, data=content.encode()
        )
        return self._answer(request, self._settings.timeout)

    def _answer(self, request: requests.Request, seconds: float) -> Answer:
        """The answer, the credential's second chance included, within `seconds`."""
        try:
            return within(seconds, lambda: self._authenticated(request, seconds))
        except ControllerError:
            self.close()
            raise

    def _authenticated(self, request: requests.Request, seconds: float) -> Answer:
        answer = self._exchange(request, seconds)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self._credential.reread()
            self.close()  # a new connection shows a new certificate
            answer = self._exchange(request, seconds)
        return answer

    def _exchange(self, request: requests.Request, seconds: float) -> Answer:
        request.headers.update(self._credential.headers())
        sent_at = time.time()
        answer = self._transport.send(request, seconds)
        self._clock.note(answer.headers.get("Date"), sent_at, time.time())
        return answer


def address(settings: Any) -> tuple[Any, ...]:
    """What the connection and the credential are made from."""
    return settings.endpoint, settings.auth, settings.proxy


def common_headers(trace_id: str | None) -> dict[str, str]:
    """What every request says of itself; a new span of `trace_id` each time."""
    return {
        "User-Agent": f"miglet/{__version__}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "traceparent": f"00-{usable_trace(trace_id)}-{secrets.token_hex(8)}-01",
    }


def usable_trace(trace_id: str | None) -> str:
    """`trace_id` as 32 hexadecimal digits (W3C Trace Context), or a new one."""
    try:
        trace = uuid.UUID(trace_id or "")
    except ValueError:
        return uuid.uuid4().hex
    return trace.hex if trace.int else uuid.uuid4().hex


# The clock of the controller, as its answers tell it. Each answer says only between
# which two bounds the offset lies, since its Date has no fractions and was written at
# some time between request and answer: what all answers agree on is believed.

#: ``Date`` is cut to whole seconds (RFC 9110, 5.6.7).
RESOLUTION_SECONDS = 1.0

#: How far two clocks may drift apart in a second: 100 ppm, more than any quartz.
DRIFT = 1e-4


class Bounds(NamedTuple):
    """The controller's time minus ours, in seconds, as known at `at`."""

    low: float
    high: float
    at: float

    def aged(self, at: float) -> Bounds:
        """What is still certain at `at`: the clocks may have drifted since."""
        drift = DRIFT * abs(at - self.at)
        return Bounds(self.low - drift, self.high + drift, at)

    def narrowed(self, other: Bounds) -> Bounds:
        """What both say; `other` alone if they contradict each other."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Bounds(low, high, other.at) if low <= high else other


class ClockOffset:
    """The best estimate of the controller's time minus ours, from all answers."""

    def __init__(self) -> None:
        self._bounds: Bounds | None = None

    @property
    def seconds(self) -> float | None:
        """The estimate; None before the first answer that had a ``Date``."""
        if self._bounds is None:
            return None
        return (self._bounds.low + self._bounds.high) / 2

    def note(self, date: str | None, sent_at: float, received_at: float) -> None:
        """Learn from an answer's ``Date``; times are our wall clock's."""
        theirs = parse_http_date(date)
        if theirs is None or received_at < sent_at:
            return
        latest = theirs + RESOLUTION_SECONDS - sent_at
        seen = Bounds(theirs - received_at, latest, received_at)
        known = self._bounds or seen
        self._bounds = known.aged(received_at).narrowed(seen)
