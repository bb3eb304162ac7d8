"""A machine for each test: the real agent, a runner double, one real controller."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.agent_process import Agent, configured, ended
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double.double import Double, install
from tests.runner_double.plan import FAST

_numbers = itertools.count(1)


@dataclass
class Machine:
    """One VM: its agent, its runner, and what the controller knows of it."""

    vm: str
    agent: Agent
    double: Double
    controller: ReferenceController

    def event(self, kind: str, seconds: float = 60.0, count: int = 1) -> dict[str, Any]:
        """The `count`-th event of a kind, waited for."""
        try:
            return self.controller.wait_for(self.vm, kind, seconds, count)
        except AssertionError as error:
            raise AssertionError(f"{error}; log:\n{self.agent.end_of_log()}") from None

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What has arrived, without the heartbeats of jobs."""
        found = self.controller.events(self.vm, kind)
        return [each for each in found if each["type"] != "JobHeartbeat"]

    def types(self) -> list[str]:
        return [each["type"] for each in self.events()]

    def order(self, kind: str, **parameters: Any) -> dict[str, Any]:
        """Queue a command; its CommandCompleted's data."""
        number = self.controller.command(self.vm, kind, parameters)
        return self.answer(number)

    def answer(self, number: str, seconds: float = 60.0) -> dict[str, Any]:
        """The CommandCompleted of a command."""
        found = self.controller.wait_for(
            self.vm,
            "CommandCompleted",
            seconds,
            where=lambda event: event["data"]["command_id"] == number,
        )
        return found["data"]


@pytest.fixture(scope="session")
def controller(tmp_path_factory) -> Iterator[ReferenceController]:
    """One controller for all machines."""
    with running_controller(tmp_path_factory.mktemp("controller")) as running:
        yield running


@pytest.fixture
def machine(controller, tmp_path) -> Iterator[Callable[..., Machine]]:
    """Makes machines; what they start is gone after the test."""
    with ExitStack() as stack:

        def make(
            *listener: dict[str, Any], plan: Any = None, **settings: Any
        ) -> Machine:
            vm = f"vm-{next(_numbers)}"
            folder = tmp_path / vm
            folder.mkdir()
            wishes = {
                "scale": FAST,
                **(plan or {}),
                **({"listener": list(listener)} if listener else {}),
            }
            double = install(folder / "runner", wishes)
            stack.callback(double.kill)
            agent = configured(
                folder / "agent",
                controller.endpoint,
                controller.token_path,
                folder / "runner",
                **{"vm_id": vm, **settings},
            )
            stack.enter_context(ended(agent))
            return Machine(vm, agent, double, controller)

        yield make


def job(result: str = "Succeeded", **more: Any) -> dict[str, Any]:
    """A listener's plan: one job."""
    return {"scenario": "job", "result": result, "after": 0.1, "seconds": 0.3, **more}


HELD = {"scenario": "job", "after": 0.05, "hold": True}
IDLE = {"scenario": "idle"}


def pointed_at(vm: Machine, endpoint: str) -> Machine:
    """The machine with another controller in its configuration."""
    text = vm.agent.config.read_text()
    vm.agent.config.write_text(text.replace(vm.controller.endpoint, endpoint))
    return vm


@pytest.fixture
def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
