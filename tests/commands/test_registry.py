"""Commands: their form, their validation, and what obeying them leads to."""

from __future__ import annotations

import json

import pytest

from miglet.controller import contract
from miglet.formats import canonical_command
from miglet.lifecycle.effects import (
    AcceptCommand,
    ChangeLevel,
    ChangeSettings,
    GiveOrder,
)
from miglet.lifecycle.table import COMMANDS, OPEN_COMMANDS_LIMIT, step
from miglet.lifecycle.vm import Moment, State
from miglet.messages.facts import (
    CommandReceived,
    CommandValidated,
    CredentialsRenewed,
    WorkerStarted,
)
from miglet.messages.orders import RenewCredentials
from tests.commands.validated import validated
from tests.histories import busy, events, fresh, idle, live, types

NOW = Moment(1000.0, 50.0)


@pytest.mark.parametrize("name", ["Drain", "drain", "DRAIN", "D_r_a_i_n"])
def test_names_are_matched_without_case_and_underscores(name):
    vm, effects = live(idle(), CommandValidated("c-1", name, {}))
    assert vm.state is State.DRAINING
    assert events(effects)[-1].command_type == "Drain"


def test_an_unknown_command_is_rejected_and_changes_nothing():
    fact = validated({"id": "c", "type": "Reboot", "parameters": {}}, [], {})
    vm, effects = live(busy(), fact)
    (answer,) = events(effects)
    assert vm == busy()
    assert answer.outcome == "rejected"
    assert "Reboot" in answer.reason


def test_an_expired_command_is_rejected():
    command = {"id": "c", "type": "Drain", "parameters": {}}
    vm, effects = live(idle(), validated(command, ["it expired 5 s ago"], {}))
    assert vm.state is State.IDLE
    assert events(effects)[0].reason == "it expired 5 s ago"


def test_every_command_ends_in_exactly_one_answer():
    for name in COMMANDS:
        fact = CommandValidated("c", name, {"level": "debug"}, settings={"a": 1})
        renewed = CredentialsRenewed("c", None)
        history = [fact, renewed] if COMMANDS[name].answered_later else [fact]
        assert types(live(busy(), *history)[1]).count("CommandCompleted") == 1


def test_what_an_operator_orders_is_no_event():
    fact = CommandValidated("", "Drain", {"reason": "rack 7"}, requested_by="operator")
    vm, effects = live(busy(), fact)
    assert events(effects) == []
    end = vm.end
    assert (end.reason, end.requested_by, end.detail) == (
        "drained",
        "operator",
        "rack 7",
    )


def test_a_changed_configuration_is_adopted_as_a_whole():
    settings = {"heartbeat": {"interval": 1.0}}
    fact = CommandValidated("c", "UpdateConfig", {"config": {}}, settings=settings)
    _, effects = live(busy(), fact)
    assert ChangeSettings(settings, None) in effects


def test_a_machine_that_ends_takes_no_settings():
    vm = idle().replace(state=State.SHUTTING_DOWN)
    fact = CommandValidated("c", "UpdateConfig", {"config": {}}, settings={"a": 1})
    _, effects = live(vm, fact)
    assert [type(each).__name__ for each in effects] == ["Emit"]
    assert events(effects)[0].outcome == "rejected"


def test_the_level_changes_at_once():
    fact = CommandValidated("c", "SetLogLevel", {"level": "debug"})
    assert ChangeLevel("debug") in live(busy(), fact)[1]


def test_every_command_of_the_contract_is_obeyed_or_known_not_to_be():
    known = {each.name for each in COMMANDS.values()}
    assert known == set(contract.COMMANDS), (
        "each has its command-NAME.json in miglet/controller/contract/schemas"
    )
    for each in COMMANDS.values():
        assert each.rule.__doc__
        assert json.dumps(contract.schema(f"command-{each.name}"))
        assert canonical_command(each.name) in COMMANDS


def test_a_command_is_open_from_its_acceptance_to_its_answer():
    order = CommandReceived("c", "drain", {})
    vm, effects = step(idle(), order, NOW)
    assert effects == [AcceptCommand(order)]
    assert vm.commands == {"c": "Drain"}
    vm, _ = step(vm, CommandValidated("c", "drain", {}), NOW)
    assert vm.commands == {}


def test_a_command_without_a_usable_id_is_an_error_and_nothing_else():
    vm, effects = step(idle(), CommandReceived("", "Drain", {}, faults=["no id"]), NOW)
    assert [each.code for each in events(effects)] == ["malformed_command"]
    assert vm == idle()


def test_only_so_many_commands_wait_at_the_same_time():
    vm = idle()
    for number in range(OPEN_COMMANDS_LIMIT):
        vm, _ = step(vm, CommandReceived(f"c-{number}", "Drain", {}), NOW)
    vm, effects = step(vm, CommandReceived("one-more", "Drain", {}), NOW)
    (answer,) = events(effects)
    assert (answer.command_id, answer.outcome) == ("one-more", "rejected")


def test_a_command_is_not_obeyed_after_it_was_answered():
    late = CommandValidated("c", "Shutdown", {"mode": "immediate"})
    assert step(busy(), late, NOW) == (busy(), [])


def test_a_new_heartbeat_sender_is_ordered_to_renew_the_credentials_again():
    vm, _ = live(idle(), CommandValidated("c", "RotateCredentials", {}))
    new = WorkerStarted("heartbeat-sender", 4711, 1, 1)
    vm, effects = step(vm, new, NOW)
    assert GiveOrder(RenewCredentials("c")) in effects
    vm, effects = live(vm, CredentialsRenewed("c", None), CredentialsRenewed("c", None))
    assert [each.outcome for each in events(effects)] == ["done"]


def test_the_end_of_the_machine_answers_what_is_still_open():
    vm, effects = live(
        fresh(),
        CommandReceived("c", "SetLogLevel", {}),
        CommandValidated("d", "Shutdown", {"mode": "immediate"}),
    )
    answers = {
        each.command_id: each.outcome
        for each in events(effects)[:-1]
        if hasattr(each, "command_id")
    }
    assert answers == {"c": "failed", "d": "done"}
    assert events(effects)[-1].type == "VMStopped"
