"""MIGlet, or the process that validates a command, dies before the command is obeyed.

Either way the command is answered once, and never obeyed twice.
"""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import IDLE
from tests.faults import invariants
from tests.faults.death_points import deadly, fired
from tests.support import eventually


@pytest.mark.parametrize(
    ("point", "outcome"),
    [
        pytest.param("command.accepted", "failed"),
        pytest.param("arbiter.obeyed", "done", marks=pytest.mark.slow),
    ],
)
def test_a_command_that_dies_with_miglet_is_answered_once(machine, point, outcome):
    vm = machine(IDLE)
    plan = deadly(vm, f"{point} 1 kill")
    vm.agent.start()
    vm.agent.until("idle")
    number = vm.controller.command(vm.vm, "Drain")
    eventually(lambda: fired(plan, point), what="a death")
    vm.agent.wait()
    vm.agent.start()
    answer = vm.answer(number)
    assert answer["outcome"] == outcome
    if outcome == "failed":
        assert "before it was obeyed" in answer["reason"]
        vm.agent.until("idle")
        assert vm.order("Drain")["outcome"] == "done"
    assert vm.agent.wait() == 0
    invariants.whole(vm.events())
    answers = [each["data"]["command_id"] for each in vm.events("CommandCompleted")]
    assert answers.count(number) == 1
    assert vm.types().count("VMShuttingDown") == 1


def test_a_command_whose_validation_dies_has_failed_and_may_be_sent_again(machine):
    vm = machine(IDLE)
    plan = deadly(vm, "command.validating 1 kill")
    vm.agent.start()
    vm.agent.until("idle")
    answer = vm.order("Drain")
    assert fired(plan, "command.validating")
    assert answer["outcome"] == "failed"
    assert "the process that validates it died" in answer["reason"]
    assert vm.agent.status()["state"] == "idle"
    assert vm.order("Drain")["outcome"] == "done"
    assert vm.agent.wait() == 0
    invariants.whole(vm.events())
    assert len(vm.events("CommandCompleted")) == 2
