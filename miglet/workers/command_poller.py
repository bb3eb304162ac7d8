"""Asks the controller for commands and passes them on, unvalidated.

It holds nothing that could be lost: a command that dies with it is handed out again,
and the arbiter knows which ones it has seen.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import signal
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

from miglet.controller.answers import EARLIEST_EXPIRY
from miglet.errors import ControllerError
from miglet.formats import parse_rfc3339
from miglet.messages.codec import Depth, is_sendable
from miglet.messages.facts import (
    CALL_FACTS,
    PARAMETERS_DEPTH,
    CommandReceived,
    ControllerAnswered,
)
from miglet.supervisor.privileges import COMMAND_USER
from miglet.workers.base import LIVENESS_MARGIN, ControllerWorker
from miglet.workers.failures import report_failure

#: Most seconds until the first poll: machines that boot together do not ask together.
FIRST_PHASE_SECONDS = 1.0

#: Seconds between two polls while each brings as many commands as are taken of one: a
#: backlog stays within what this worker may report.
BACKLOG_SECONDS = 0.5

#: New commands that are taken of one answer; the others are handed out again.
MOST_COMMANDS = 16

#: Commands that the poller remembers, to tell a new one from a repeated one.
REMEMBERED = 4096

#: Commands without a usable id that are reported within a minute: nobody answers them,
#: and each report is an event.
MOST_MALFORMED = 4
MINUTE = 60.0

#: Most bytes of a command's parameters.
PARAMETERS_LIMIT = 32 * 1024

#: Most characters of an id or a type.
NAME_LIMIT = 128

log = logging.getLogger(__name__)


class CommandPoller(ControllerWorker):
    """Long-polls, or polls a controller that does not know what a long poll is."""

    name = "command-poller"
    user = COMMAND_USER
    facts = CALL_FACTS | {CommandReceived}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        #: Ids of commands, and digests of those that have none; the oldest first.
        self._seen: dict[str, None] = {}
        #: When the latest commands without a usable id were reported.
        self._malformed_at: deque[float] = deque(maxlen=MOST_MALFORMED)
        self._started = False

    def take_over_signals(self) -> None:
        """SIGTERM ends it in the middle of a long poll: there is nothing to finish."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def work(self) -> None:
        """One poll."""
        controller = self.settings.controller
        if not self._started:
            self._started = True
            interval = min(FIRST_PHASE_SECONDS, controller.command_interval)
            self.period = random.uniform(0.0, interval)
            return
        self.ping(controller.command_wait + controller.timeout + LIVENESS_MARGIN)
        began = self._now()
        try:
            commands = self._client.commands(
                controller.command_wait, self.identity.trace_id
            )
        except ControllerError as error:
            self.period = self._backoff.delay(error)
            failures = self._backoff.failures
            report_failure(self, "commands", error, failures, self.period)
            return
        if self._backoff.failures:
            offset = self._client.clock_offset_seconds
            self.report(ControllerAnswered("commands", offset))
        self._backoff.reset()
        interval = controller.command_interval * random.uniform(0.9, 1.1)
        # An answer with something new may be one of several; else two polls begin no
        # less than an interval apart, however soon the controller answers.
        new = self._pass_on(commands)
        again = 0.0 if any(not each.faults for each in new) else interval
        if len(new) == MOST_COMMANDS:
            again = max(again, BACKLOG_SECONDS)
        self.period = max(0.0, began + again - self._now())

    def _pass_on(self, commands: list[object]) -> list[CommandReceived]:
        """Report the new ones of the commands of an answer, as many as are taken."""
        new = list(islice(self._new_among(commands), MOST_COMMANDS))
        for command in new:
            self.report(command)
        return new

    def _new_among(self, commands: list[object]) -> Iterable[CommandReceived]:
        for raw in commands:
            command = parse_command(raw)
            key = command.id or digest(raw)
            if key in self._seen:
                continue
            if command.id or self._may_report_malformed(command):
                self._remember(key)
                yield command

    def _remember(self, key: str) -> None:
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def _may_report_malformed(self, command: CommandReceived) -> bool:
        """Whether a command without a usable id is reported now, or only logged."""
        now, times = self._now(), self._malformed_at
        if len(times) == MOST_MALFORMED and now - times[0] < MINUTE:
            log.info("ignored a command: %s", "; ".join(command.faults))
            return False
        times.append(now)
        return True


def digest(raw: object) -> str:
    """What a command without a usable id is remembered by: equal content, same digest.

    Its first character is one that no usable id has.
    """
    return "\0" + hashlib.sha256(repr(raw).encode(errors="replace")).hexdigest()


def parse_command(raw: object) -> CommandReceived:
    """The command in `raw`, with every fault of its form.

    Whether it is known and its parameters are valid is for the arbiter's child task.
    """
    if not isinstance(raw, dict):
        return CommandReceived("", "", {}, None, ["the command is not an object"])
    faults: list[str] = []
    parameters = _parameters(raw.get("parameters"), faults)
    return CommandReceived(
        id=_name(raw, "id", faults),
        type=_name(raw, "type", faults),
        parameters=parameters,
        expires_at=_expiry(raw.get("expires_at"), faults),
        faults=faults,
    )


def _name(raw: dict[str, Any], key: str, faults: list[str]) -> str:
    value = raw.get(key)
    if isinstance(value, str) and 0 < len(value) <= NAME_LIMIT and value.isprintable():
        return value
    faults.append(f"{key} is not a text of 1 to {NAME_LIMIT} printable characters")
    return ""


def _parameters(value: object, faults: list[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append("parameters is not an object")
    elif not Depth(PARAMETERS_DEPTH).holds(value):
        faults.append(f"parameters are nested deeper than {PARAMETERS_DEPTH}")
    elif not is_sendable(value):
        faults.append("parameters have a number that is too large, or is none")
    elif len(json.dumps(value)) > PARAMETERS_LIMIT:
        faults.append(f"parameters are larger than {PARAMETERS_LIMIT} bytes")
    else:
        return value
    return {}


def _expiry(value: object, faults: list[str]) -> float | None:
    if value is None or value == "":
        return None
    at = parse_rfc3339(value) if isinstance(value, str) else None
    if at is None:
        faults.append("expires_at is not a time such as 2026-01-15T10:30:00Z")
        return None
    return None if at < EARLIEST_EXPIRY else at
