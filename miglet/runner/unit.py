"""The transient unit that a run has to itself, identified by its invocation id.

systemd makes a new id each time that it starts a unit (systemd.exec(5)), so a unit of
the same name is never taken for this one, and never signalled in its place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from miglet.messages.codec import Value, frozen_value
from miglet.runner import cgroup
from miglet.supervisor import systemd

#: Where the service manager writes for the journal which invocation a unit is in.
INVOCATIONS = "/run/systemd/units"


@frozen_value
class Unit(Value):
    """One invocation of one transient service."""

    name: str
    invocation_id: str
    #: The folder of its control group; None where there is no version 2.
    group: str | None

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> Unit:
        """Read what the shim recorded; raises KeyError or TypeError."""
        group = document["group"]
        return cls(
            str(document["name"]),
            str(document["invocation_id"]),
            str(group) if group else None,
        )

    def present(self, invocations: str = INVOCATIONS) -> bool:
        """Whether systemd still has this invocation: its end is not complete."""
        with suppress(OSError):
            current = os.readlink(f"{invocations}/invocation:{self.name}")
            return current == self.invocation_id
        return False

    def pids(self) -> list[int]:
        """The processes in the unit, the shim as well."""
        return cgroup.pids(self.group) if self.group else []

    def figures(self) -> dict[str, Any]:
        """What the whole unit has used, under the names of `Usage`.

        Without those that this kernel, or this group, does not count.
        """
        return cgroup.figures(self.group) if self.group else {}

    def oom_kills(self) -> int | None:
        """How many of the unit's processes were killed for lack of memory."""
        return cgroup.oom_kills(self.group) if self.group else None

    def kill(self, seconds: float) -> None:
        """Have systemd SIGKILL the whole unit; it gets `seconds` to answer."""
        if not self.present():
            return
        command = ["systemctl", "kill", "--kill-who=all", "--signal=KILL", self.name]
        with suppress(systemd.CommandFailed):
            systemd.order(command, seconds)


def unit_wanted(isolation: str, usable: bool) -> bool:
    """Whether to launch in a unit; preflight has refused what is not possible."""
    return isolation == "systemd" or (isolation == "auto" and usable)
