"""The calls of agents: tokens, events, heartbeats, commands.

Nothing is acknowledged before it is on the disk, and nothing is taken before it was
held against the contract.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from miglet.formats import rfc3339
from miglet.reference.bodies import check, machine_id, read_json, waiting_time
from miglet.reference.database import Arrival, arrival
from miglet.reference.fleet import Controller, command_topic, event_topic
from miglet.reference.problems import Problem
from miglet.reference.store import Kept
from miglet.reference.tokens import TokenFile

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
            kept = self._keep(vm_id, body, came)
        except Problem:
            self._controller.store.count_refused(vm_id)
            raise
        return web.json_response(
            {"acknowledged": True, "duplicate": kept is Kept.DUPLICATE}
        )

    async def heartbeat(self, request: web.Request) -> web.Response:
        """Store a heartbeat."""
        vm_id = self._caller(request)
        body = await read_json(request)
        came = arrival()
        check(body, "heartbeat")
        _check_same_machine(vm_id, body)
        self._controller.store.keep_heartbeat(vm_id, body, came)
        self._controller.pulses.felt(vm_id, came.now)
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
        queue, bells = self._controller.commands, self._controller.bells
        while not _is_gone(request):
            commands = queue.claim(vm_id, arrival())
            now = time.monotonic()
            if commands or now >= deadline or bells.closed:
                return commands
            held = min(deadline - now, queue.lease_left(vm_id, now))
            await bells.wait(command_topic(vm_id), held)
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

    def _keep(self, vm_id: str, event: Mapping[str, Any], came: Arrival) -> Kept:
        self._warn_of_gap(vm_id, event["sequence"])
        kept = self._controller.store.keep_event(vm_id, event, came)
        if kept is Kept.CONFLICT:
            raise Problem(422, f"event {event['id']} was stored with another content")
        if event["type"] == "CommandCompleted":
            self._controller.commands.forget_lease(event["data"]["command_id"])
        self._controller.bells.ring(event_topic(vm_id))
        return kept

    def _warn_of_gap(self, vm_id: str, sequence: int | None) -> None:
        highest = self._controller.views.highest_sequence(vm_id)
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
