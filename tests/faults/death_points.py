"""Has MIGlet die at a named point, and starts it again until its life is over."""

from __future__ import annotations

import signal
from pathlib import Path

from miglet.supervisor.failpoints import VARIABLE
from tests.end_to_end.conftest import Machine
from tests.support import eventually

KILLED = -signal.SIGKILL


def deadly(vm: Machine, *lines: str) -> Path:
    """Write the plan of failpoints for the machine's next start; its path."""
    plan = vm.agent.folder / "failpoints"
    plan.write_text("".join(f"{line}\n" for line in lines))
    plan.chmod(0o600)
    vm.agent.environment[VARIABLE] = str(plan)
    return plan


def fired(plan: Path, name: str) -> bool:
    """Whether somebody has died at this point."""
    return plan.with_name(f"{plan.name}.{name}").exists()


def live_on(vm: Machine, ended: bool = False, most: int = 40) -> int:
    """Start MIGlet again whenever it was killed; the exit status of its last life.

    With `ended`, only when the runner has come to its end in the meantime.
    """
    for _ in range(most):
        vm.agent.start()
        status = vm.agent.wait()
        if status != KILLED:
            return status
        if ended and vm.double.truth("listener_start"):
            eventually(lambda: not vm.double.pids(), 20, "the end of the runner")
    raise AssertionError(f"killed {most} times")
