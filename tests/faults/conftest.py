"""A machine for each test, as in the end-to-end tests; what is slow says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.agent_process import ended
from tests.end_to_end.conftest import Machine, controller, free_port, machine
from tests.faults.wrapped import Wrapped

__all__ = ["controller", "free_port", "machine"]


@pytest.fixture
def wrapped() -> Iterator[Callable[..., Machine]]:
    """Has a machine's agent started by way of another command."""
    with ExitStack() as stack:

        def wrap(vm: Machine, *command: str) -> Machine:
            agent = Wrapped(vm.agent.folder, vm.agent.config, wrapper=list(command))
            vm.agent = stack.enter_context(ended(agent))
            return vm

        yield wrap
