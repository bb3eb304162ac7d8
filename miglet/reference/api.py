"""The API's calls: for agents (tokens, events, heartbeats, commands) and for operators.

Nothing is acknowledged before it is on the disk, and nothing is taken before it was
held against the contract.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

from miglet.controller import contract
from miglet.formats import canonical_command, rfc3339, strict_json
from miglet.reference.fleet import Controller, command_topic, event_topic
from miglet.reference.problems import Problem
from miglet.reference.store import Arrival, StoreResult, arrival
from miglet.reference.tokens import TokenFile

IDENTIFIER = re.compile(r"[!-.0-~]{1,128}")

#: The longest time for which a request may ask to be held, in seconds.
LONGEST_WAIT_SECONDS = 60.0

#: The largest body that is read at all.
MAX_BODY_BYTES = 1024 * 1024

#: How many mistakes of one body are reported.
MAX_MISTAKES = 10

VALIDATORS = {
    name: Draft7Validator(contract.schema(name))
    for name in contract.SCHEMAS
    if name.endswith("-request") or name in ("event", "heartbeat")
}
COMMANDS = {
    name: Draft7Validator(contract.schema(f"command-{name}"))
    for name in contract.COMMANDS
}


async def read_json(request: web.Request, most_bytes: int = MAX_BODY_BYTES) -> Any:
    """The body as JSON; a Problem if it is none (NaN and the like are none)."""
    body = await request.read()
    if len(body) > most_bytes:
        raise Problem(413, f"the body is larger than {most_bytes} bytes")
    try:
        return strict_json(body)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from error


def check(body: Any, schema: str) -> None:
    """A Problem that names every field of `body` that is not as in `schema`."""
    _check(VALIDATORS[schema], body, f"the body is not a valid {schema}")


def command_type(name: str) -> str:
    """The wire name of a command, written with or without case and underscores."""
    for known in contract.COMMANDS:
        if canonical_command(known) == canonical_command(name):
            return known
    raise Problem(422, f"no command {name!r}; there are {', '.join(contract.COMMANDS)}")


def check_parameters(command: str, parameters: Any) -> None:
    """A Problem if `parameters` are not those of `command` (its wire name)."""
    _check(COMMANDS[command], parameters, f"not the parameters of {command}")


def machine_id(request: web.Request) -> str:
    """The machine that the path names."""
    name = request.match_info["vm_id"]
    if not IDENTIFIER.fullmatch(name):
        raise Problem(
            400, "vm_id is 1 to 128 printable ASCII characters without space or slash"
        )
    return name


def waiting_time(request: web.Request) -> float:
    """Seconds for which the client wants to be held, clamped; 0 if it does not say."""
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise Problem(400, f"wait is a number of seconds, not {text!r}")
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def position(request: web.Request) -> int:
    """The place in the order of arrival after which the client wants to read on."""
    text = request.query.get("after", "0")
    if not re.fullmatch("[0-9]{1,18}", text):
        raise Problem(400, f"after is a whole number from 0, not {text!r}")
    return int(text)


def _check(validator: Draft7Validator, body: Any, detail: str) -> None:
    mistakes = list(_mistakes(validator.iter_errors(body)))
    if mistakes:
        first = f"{mistakes[0]['field'] or 'the whole'}: {mistakes[0]['reason']}"
        raise Problem(422, f"{detail}: {first}", mistakes[:MAX_MISTAKES])


def _mistakes(errors: Iterable[ValidationError]) -> Iterable[dict[str, str]]:
    for error in errors:
        field = ".".join(map(str, error.absolute_path))
        yield {"field": field, "reason": error.message[:300]}


log = logging.getLogger(__name__)

MACHINE = "/api/v1/vms/{vm_id}"

#: GitHub's own registration and removal tokens live for an hour.
TOKEN_LIFE_SECONDS = 3600.0


class AgentApi:
    """What an agent may ask; each answer is as the contract says."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def routes(self) -> list[web.RouteDef]:
        """Path and method of every call."""
        return [
            web.post(f"{MACHINE}/registration-token", self.registration_token),
            web.post(f"{MACHINE}/removal-token", self.removal_token),
            web.post(f"{MACHINE}/events", self.event),
            web.post(f"{MACHINE}/heartbeat", self.heartbeat),
            web.get(f"{MACHINE}/commands", self.commands, allow_head=False),
        ]

    async def registration_token(self, request: web.Request) -> web.Response:
        """A token for one registration, and what to register as."""
        vm_id, body = await self._token_request(request, "registration-token-request")
        tokens = self._controller.tokens
        answer = {
            "registration_token": _hand_out(tokens.registration),
            "expires_at": rfc3339(time.time() + TOKEN_LIFE_SECONDS),
            "runner_url": tokens.runner_url,
            "runner_group": body["runner_group"],
            "labels": body["labels"],
        }
        log.info("registration token handed out to %s", vm_id)
        return web.json_response(answer)

    async def removal_token(self, request: web.Request) -> web.Response:
        """A token that removes the machine's runner; 404 where there are none."""
        await self._token_request(request, "removal-token-request")
        removal = self._controller.tokens.removal
        if removal is None:
            raise Problem(404, "no removal tokens here (--removal-token-file)")
        answer = {
            "removal_token": _hand_out(removal),
            "expires_at": rfc3339(time.time() + TOKEN_LIFE_SECONDS),
        }
        return web.json_response(answer)

    async def event(self, request: web.Request) -> web.Response:
        """Store one event; a repetition of a stored one is acknowledged as well."""
        vm_id = self._caller(request)
        body = await read_json(request)
        came = arrival()
        try:
            check(body, "event")
            _check_event_belongs(request, vm_id, body)
            result = self._store(vm_id, body, came)
        except Problem:
            self._controller.store.count_refused(vm_id)
            raise
        return web.json_response(
            {"acknowledged": True, "duplicate": result is StoreResult.DUPLICATE}
        )

    async def heartbeat(self, request: web.Request) -> web.Response:
        """Store a heartbeat."""
        vm_id = self._caller(request)
        body = await read_json(request)
        came = arrival()
        check(body, "heartbeat")
        _check_same_machine(vm_id, body)
        self._controller.store.store_heartbeat(vm_id, body, came)
        self._controller.liveness.record_heartbeat(
            vm_id, came.now, body.get("interval_seconds")
        )
        return web.json_response({"acknowledged": True})

    async def commands(self, request: web.Request) -> web.Response:
        """The machine's open commands; held until there is one or `wait` is over."""
        vm_id = self._caller(request)
        deadline = time.monotonic() + waiting_time(request)
        commands = await self._commands_until(deadline, vm_id, request)
        return web.json_response({"commands": commands or None, "vm_id": vm_id})

    async def _commands_until(
        self, deadline: float, vm_id: str, request: web.Request
    ) -> list[dict[str, Any]]:
        queue, notifier = self._controller.commands, self._controller.notifier
        while not _is_gone(request):
            commands = queue.claim(vm_id, arrival())
            now = time.monotonic()
            if commands or now >= deadline or notifier.closed:
                return commands
            held = min(deadline - now, queue.lease_left(vm_id, now))
            await notifier.wait(command_topic(vm_id), held)
        return []

    async def _token_request(
        self, request: web.Request, schema: str
    ) -> tuple[str, dict[str, Any]]:
        vm_id = self._caller(request)
        body = await read_json(request)
        check(body, schema)
        return vm_id, body

    def _caller(self, request: web.Request) -> str:
        vm_id = machine_id(request)
        self._controller.meet(vm_id)
        return vm_id

    def _store(
        self, vm_id: str, event: Mapping[str, Any], came: Arrival
    ) -> StoreResult:
        self._warn_of_gap(vm_id, event["sequence"])
        result = self._controller.store.store_event(vm_id, event, came)
        if result is StoreResult.CONFLICT:
            raise Problem(422, f"event {event['id']} was stored with another content")
        if event["type"] == "CommandCompleted":
            self._controller.commands.forget_lease(event["data"]["command_id"])
        self._controller.notifier.notify(event_topic(vm_id))
        return result

    def _warn_of_gap(self, vm_id: str, sequence: int | None) -> None:
        highest = self._controller.queries.highest_sequence(vm_id)
        if sequence is not None and sequence > highest + 1:
            log.warning("%s: events %d to %d missing", vm_id, highest + 1, sequence - 1)


def _check_event_belongs(
    request: web.Request, vm_id: str, event: Mapping[str, Any]
) -> None:
    """The path and the header say the same as the event."""
    _check_same_machine(vm_id, event)
    key = request.headers.get("Idempotency-Key")
    if key is None:
        raise Problem(400, "the header Idempotency-Key is missing")
    if key != event["id"]:
        raise Problem(422, "Idempotency-Key is not the event's id")


def _check_same_machine(vm_id: str, body: Mapping[str, Any]) -> None:
    if body["vm_id"] != vm_id:
        reason = f"vm_id is {body['vm_id']!r} in the body and {vm_id!r} in the path"
        raise Problem(422, reason)


def _hand_out(tokens: TokenFile | None) -> str:
    token = tokens.next_in_turn() if tokens else None
    if token is None:
        wait = {"Retry-After": "30"}
        raise Problem(503, "no tokens to hand out just now", headers=wait)
    return token


def _is_gone(request: web.Request) -> bool:
    """Whether the client hung up: nothing may be handed out to it."""
    return request.transport is None or request.transport.is_closing()


#: The largest body of a command: eight of them are handed out in one answer, of which
#: agents read 1 MiB.
MAX_COMMAND_BYTES = 64 * 1024


class OperatorApi:
    """What an operator may ask."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def routes(self) -> list[web.RouteDef]:
        """Path and method of every call."""
        return [
            web.get("/api/v1/vms", self.machines, allow_head=False),
            web.get(MACHINE, self.machine, allow_head=False),
            web.get(f"{MACHINE}/events", self.events, allow_head=False),
            web.get(f"{MACHINE}/heartbeats", self.heartbeats, allow_head=False),
            web.post(f"{MACHINE}/commands", self.queue_command),
            web.get(f"{MACHINE}/commands/{{id}}", self.command, allow_head=False),
        ]

    async def machines(self, request: web.Request) -> web.Response:
        """Every machine, without its last heartbeat."""
        ids = self._controller.queries.machine_ids()
        machines = [self._controller.machine(vm_id) or {} for vm_id in ids]
        for machine in machines:
            machine.pop("last_heartbeat", None)
        return web.json_response({"vms": machines})

    async def machine(self, request: web.Request) -> web.Response:
        """One machine."""
        return web.json_response(self._controller.machine(self._known(request)))

    async def events(self, request: web.Request) -> web.Response:
        """Events after a position; held until there is one or `wait` is over."""
        vm_id, after = self._known(request), position(request)
        deadline = time.monotonic() + waiting_time(request)
        events = self._controller.queries.events(vm_id, after)
        while not events and await self._may_wait(vm_id, deadline):
            events = self._controller.queries.events(vm_id, after)
        following = events[-1]["position"] if events else after
        return web.json_response({"vm_id": vm_id, "events": events, "next": following})

    async def heartbeats(self, request: web.Request) -> web.Response:
        """The stored heartbeats of a machine."""
        vm_id = self._known(request)
        heartbeats = self._controller.queries.heartbeats(vm_id)
        return web.json_response({"vm_id": vm_id, "heartbeats": heartbeats})

    async def queue_command(self, request: web.Request) -> web.Response:
        """Queue a command and wake the machine's poll."""
        vm_id = self._known(request)
        body = await read_json(request, MAX_COMMAND_BYTES)
        check(body, "command-request")
        body["type"] = command_type(body["type"])
        check_parameters(body["type"], body.get("parameters") or {})
        command_id = self._controller.commands.add(vm_id, body, time.time())
        self._controller.notifier.notify(command_topic(vm_id))
        return web.json_response({"id": command_id}, status=201)

    async def command(self, request: web.Request) -> web.Response:
        """What became of a command; held until it is completed or `wait` is over."""
        vm_id, deadline = self._known(request), time.monotonic() + waiting_time(request)
        status = self._status(vm_id, request.match_info["id"])
        while status["outcome"] is None and await self._may_wait(vm_id, deadline):
            status = self._status(vm_id, status["id"])
        return web.json_response(status)

    async def _may_wait(self, vm_id: str, deadline: float) -> bool:
        """Wait for the machine's next event; False once there is no more time."""
        left = deadline - time.monotonic()
        if left <= 0 or self._controller.notifier.closed:
            return False
        await self._controller.notifier.wait(event_topic(vm_id), left)
        return True

    def _status(self, vm_id: str, command_id: str) -> dict[str, Any]:
        status = self._controller.commands.status(vm_id, command_id)
        if status is None:
            raise Problem(404, f"{vm_id} has no command {command_id!r}")
        return status

    def _known(self, request: web.Request) -> str:
        vm_id = machine_id(request)
        if not self._controller.queries.knows(vm_id):
            raise Problem(404, f"no machine {vm_id!r} has called yet")
        return vm_id
