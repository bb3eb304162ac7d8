"""The calls of operators: look at machines, give commands, see what became of them."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from miglet.reference.api import MACHINE
from miglet.reference.bodies import (
    check,
    check_parameters,
    command_type,
    machine_id,
    position,
    read_json,
    waiting_time,
)
from miglet.reference.fleet import Controller, command_topic, event_topic
from miglet.reference.problems import Problem

#: The largest body of a command: eight of them are handed out in one answer, of which
#: agents read 1 MiB.
MOST_COMMAND_BYTES = 64 * 1024


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
        ids = self._controller.views.machine_ids()
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
        events = self._controller.views.events(vm_id, after)
        while not events and await self._may_wait(vm_id, deadline):
            events = self._controller.views.events(vm_id, after)
        following = events[-1]["position"] if events else after
        return web.json_response({"vm_id": vm_id, "events": events, "next": following})

    async def heartbeats(self, request: web.Request) -> web.Response:
        """The kept heartbeats of a machine."""
        vm_id = self._known(request)
        heartbeats = self._controller.views.heartbeats(vm_id)
        return web.json_response({"vm_id": vm_id, "heartbeats": heartbeats})

    async def queue_command(self, request: web.Request) -> web.Response:
        """Queue a command and wake the machine's poll."""
        vm_id = self._known(request)
        body = await read_json(request, MOST_COMMAND_BYTES)
        check(body, "command-request")
        body["type"] = command_type(body["type"])
        check_parameters(body["type"], body.get("parameters") or {})
        command_id = self._controller.commands.add(vm_id, body, time.time())
        self._controller.bells.ring(command_topic(vm_id))
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
        if left <= 0 or self._controller.bells.closed:
            return False
        await self._controller.bells.wait(event_topic(vm_id), left)
        return True

    def _status(self, vm_id: str, command_id: str) -> dict[str, Any]:
        status = self._controller.commands.status(vm_id, command_id)
        if status is None:
            raise Problem(404, f"{vm_id} has no command {command_id!r}")
        return status

    def _known(self, request: web.Request) -> str:
        vm_id = machine_id(request)
        if not self._controller.views.knows(vm_id):
            raise Problem(404, f"no machine {vm_id!r} has called yet")
        return vm_id
