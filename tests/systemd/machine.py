"""A machine with MIGlet as a service, its runner's double, and its controller."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.reference_process import ReferenceController
from tests.runner_double.double import Double
from tests.support import eventually
from tests.systemd.console import Console

SERVICE = "miglet.service"


@dataclass
class Machine:
    """The running service and what it leaves behind."""

    console: Console
    controller: ReferenceController
    double: Double
    vm: str
    #: What no job may read.
    secrets: tuple[str, ...]

    def status(self) -> dict[str, Any]:
        """The status object; empty when nobody answers."""
        completed = self.console.ran("miglet-ctl", "--json", "status")
        return json.loads(completed.stdout) if completed.returncode == 0 else {}

    def until(
        self, state: str, holds: Callable[[dict[str, Any]], Any] = bool
    ) -> dict[str, Any]:
        """The status as soon as the machine is in this state, and `holds` of it."""

        def arrived() -> dict[str, Any]:
            now = self.status()
            return now if now.get("state") == state and holds(now) else {}

        try:
            return eventually(arrived, what=state)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.status()}\n{self.log()}") from None

    def log(self) -> str:
        command = ("journalctl", f"--unit={SERVICE}", "--lines=40", "--output=cat")
        return self.console.ran(*command).stdout

    def shown(self, name: str) -> str:
        """What systemd says of the service."""
        return self.console.property_of(SERVICE, name)

    @property
    def pid(self) -> int:
        return int(self.shown("MainPID"))

    def unit(self) -> str:
        """The one unit that the runner is in."""
        command = ("systemctl", "list-units", "--plain", "--no-legend", "miglet-r*")
        (line,) = self.console.done(*command).splitlines()
        return line.split()[0]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind that the controller has."""
        return self.controller.events(self.vm, kind)

    def in_a_job(self) -> None:
        """A job has begun that goes on until it is asked to end."""
        self.until("idle")
        self.double.release_job()
        eventually(lambda: self.double.truth("step_start"), what="the job's step")
        self.until("job_running")

    def ends_well(self) -> dict[str, Any]:
        """Let the job end: its JobCompleted, reported once and with its true result."""
        assert not self.double.truth("step_exit")
        self.double.finish_step()
        self.ended()
        (event,) = self.events("JobCompleted")
        assert (event["data"]["result"], event["data"]["cause"]) == (
            "succeeded",
            "success",
        )
        assert len(self.events("JobStarted")) == len(self.events("VMStarted")) == 1
        return event

    def ended(self) -> None:
        """Wait for the service's end."""

        def inactive() -> bool:
            return self.shown("ActiveState") == "inactive"

        try:
            eventually(inactive, what="the end of the service")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
