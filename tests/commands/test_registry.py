"""Commands: their form, their examination, and what obeying them leads to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.commands.intake import with_settings_checked
from miglet.commands.validation import command_faults, examine_command
from miglet.config.load import Loaded, Origin, explanation
from miglet.config.schema import KEYS
from miglet.controller import contract
from miglet.formats import canonical_command
from miglet.lifecycle.effects import AcceptCommand, Adopt, ChangeLevel, Tell
from miglet.lifecycle.table import COMMANDS, OPEN_COMMANDS_LIMIT, step
from miglet.lifecycle.vm import Moment, State
from miglet.messages.codec import encode
from miglet.messages.facts import (
    CommandExamined,
    CommandReceived,
    CredentialsRenewed,
    WorkerStarted,
)
from miglet.messages.orders import RenewCredentials
from miglet.supervisor import queues
from miglet.workers.command_poller import (
    DEPTH_LIMIT,
    NAME_LIMIT,
    PARAMETERS_LIMIT,
    parse_command,
)
from tests.histories import busy, events, fresh, idle, live
from tests.sample_settings import sample_settings

NOW = Moment(1000.0, 50.0)
GOOD = {"id": "c-1", "type": "Drain", "created_at": "2026-01-15T10:30:00Z"}


def nested(depth: int) -> dict:
    return {"deeper": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize("name", ["Drain", "drain", "DRAIN", "D_r_a_i_n"])
def test_names_are_matched_without_case_and_underscores(name):
    vm, effects = live(idle(), CommandExamined("c-1", name, {}))
    assert vm.state is State.DRAINING
    assert events(effects)[-1].command_type == "Drain"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ("Drain", "not an object"),
        ({}, "id is not a text"),
        ({**GOOD, "id": 7}, "id is not a text"),
        ({**GOOD, "id": ""}, "id is not a text"),
        ({**GOOD, "id": "x" * (NAME_LIMIT + 1)}, "id is not a text"),
        ({**GOOD, "id": "a\nb"}, "id is not a text"),
        ({**GOOD, "type": None}, "type is not a text"),
        ({**GOOD, "parameters": []}, "parameters is not an object"),
        ({**GOOD, "parameters": "x"}, "parameters is not an object"),
        ({**GOOD, "parameters": nested(DEPTH_LIMIT + 1)}, "nested deeper"),
        ({**GOOD, "parameters": {"x": "y" * PARAMETERS_LIMIT}}, "larger than"),
        ({**GOOD, "expires_at": "soon"}, "expires_at is not a time"),
        ({**GOOD, "expires_at": "2026-01-15T10:30:00"}, "expires_at is not a time"),
        ({**GOOD, "expires_at": 1e99}, "expires_at is not a time"),
    ],
)
def test_a_malformed_command_is_refused_with_its_reason(raw, reason):
    assert any(reason in fault for fault in parse_command(raw).faults)


def test_a_well_formed_command_has_no_fault():
    fact = parse_command(
        {**GOOD, "parameters": None, "expires_at": "2026-01-15T10:30:00Z"}
    )
    assert fact.faults == []
    assert fact.expires_at == 1768473000.0


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda each: st.lists(each) | st.dictionaries(st.text(max_size=9), each),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "parameters", "expires_at"]), JSON))
def test_whatever_comes_fits_on_a_queue(raw):
    encode(parse_command(raw))


@pytest.mark.parametrize(
    ("kind", "parameters", "fault"),
    [
        ("Drain", {}, None),
        ("shutdown", {"mode": "immediate"}, None),
        ("set_log_level", {"level": "debug"}, None),
        ("SetLogLevel", {"level": "WARN"}, None),
        ("UpdateConfig", {"heartbeat.interval": "1s"}, None),
        ("UpdateConfig", {"config": {}, "heartbeat": {}}, "nothing beside config"),
        ("Shutdown", {"mode": "now"}, "mode"),
        ("SetLogLevel", {}, "level"),
        ("SetLogLevel", {"level": "loud"}, "level"),
        ("SetLogLevel", {"level": 1}, "level"),
        ("UpdateConfig", {"config": []}, "config"),
        ("UpdateConfig", {}, "config"),
        ("Drain", {"now": True}, "now"),
        ("SetLoglevels", {}, "did you mean SetLogLevel?"),
        ("Reboot", {}, "unknown command 'Reboot'"),
    ],
)
def test_parameters_are_held_against_the_schema(kind, parameters, fault):
    found = list(command_faults(kind, parameters))
    assert any(fault in each for each in found) if fault else found == []


def examined(command: dict, faults: list[str], current: dict) -> CommandExamined:
    ours, theirs = queues.pair()
    examine_command(theirs, command, faults, current)
    (fact,) = list(ours.receive())
    ours.close()
    theirs.close()
    return fact


CURRENT = {
    "settings": sample_settings().as_dict(),
    "origins": explanation(
        Loaded(sample_settings(), dict.fromkeys(KEYS, Origin("default")))
    ),
}


@pytest.mark.parametrize(
    "parameters",
    [
        {"config": {"heartbeat": {"interval": "1s"}}},
        {"heartbeat": {"interval": "1s"}},
        {"heartbeat.interval": "1s"},
    ],
)
def test_changed_settings_are_a_parameter_or_the_parameters(parameters):
    command = {"id": "c", "type": "UpdateConfig", "parameters": parameters}
    fact = examined(command, [], CURRENT)
    assert fact.faults == []
    assert fact.settings["heartbeat"]["interval"] == 1.0


@pytest.mark.parametrize("key", [key for key in KEYS if key.endswith("_path")])
def test_the_controller_cannot_say_where_credentials_are_read(key):
    parameters = {key: "/etc/shadow"}
    command = {"id": "c", "type": "UpdateConfig", "parameters": parameters}
    fact = examined(command, [], CURRENT)
    assert fact.settings is None
    assert "may not change at run time" in fact.faults[0]


@pytest.mark.parametrize("level", ["debug", "DEBUG", "Warning", "warn", "WARN"])
def test_a_level_is_taken_in_any_case(level):
    fact = examined(
        {"id": "c", "type": "SetLogLevel", "parameters": {"level": level}}, [], {}
    )
    _, effects = live(idle(), fact)
    names = {"warn": "warning"}
    wanted = names.get(level.lower(), level.lower())
    assert ChangeLevel(wanted) in effects


def test_an_unknown_command_is_rejected_and_changes_nothing():
    fact = examined({"id": "c", "type": "Reboot", "parameters": {}}, [], {})
    vm, effects = live(busy(), fact)
    (answer,) = events(effects)
    assert vm == busy()
    assert answer.outcome == "rejected"
    assert "Reboot" in answer.reason


def test_an_expired_command_is_rejected():
    command = {"id": "c", "type": "Drain", "parameters": {}}
    vm, effects = live(idle(), examined(command, ["it expired 5 s ago"], {}))
    assert vm.state is State.IDLE
    assert events(effects)[0].reason == "it expired 5 s ago"


def test_every_command_ends_in_exactly_one_answer():
    for name in COMMANDS:
        fact = CommandExamined("c", name, {"level": "debug"}, settings={"a": 1})
        renewed = CredentialsRenewed("c", None)
        history = [fact, renewed] if COMMANDS[name].answered_later else [fact]
        assert len(events(live(busy(), *history)[1])) == 1


def test_what_an_operator_orders_is_no_event():
    fact = CommandExamined("", "Drain", {"reason": "rack 7"}, requested_by="operator")
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
    fact = CommandExamined("c", "UpdateConfig", {"config": {}}, settings=settings)
    _, effects = live(busy(), fact)
    assert Adopt(settings, None) in effects


def test_a_machine_that_ends_takes_no_settings():
    vm = idle().replace(state=State.SHUTTING_DOWN)
    fact = CommandExamined("c", "UpdateConfig", {"config": {}}, settings={"a": 1})
    _, effects = live(vm, fact)
    assert [type(each).__name__ for each in effects] == ["Emit"]
    assert events(effects)[0].outcome == "rejected"


def test_the_level_changes_at_once():
    fact = CommandExamined("c", "SetLogLevel", {"level": "debug"})
    assert ChangeLevel("debug") in live(busy(), fact)[1]


def test_every_command_of_the_contract_is_obeyed_or_known_not_to_be():
    known = {each.name for each in COMMANDS.values()}
    assert known == set(contract.COMMANDS)
    for each in COMMANDS.values():
        assert each.rule.__doc__
        assert json.dumps(contract.schema(f"command-{each.name}"))
        assert canonical_command(each.name) in COMMANDS


IN_FORCE = sample_settings()


def answer_with(changes: dict) -> CommandExamined:
    settings = IN_FORCE.replaced(changes).as_dict()
    return CommandExamined("c-1", "UpdateConfig", {}, settings=settings)


def test_the_answer_of_a_child_may_change_what_may_change():
    fact = answer_with({"heartbeat.interval": 20.0})
    assert with_settings_checked(fact, IN_FORCE) == fact


@pytest.mark.parametrize(
    "changes",
    [
        {"runner.user": None},
        {"runner.directory": "/dev/shm/evil"},
        {"controller.endpoint": "https://evil.example"},
        {"runner.isolation": "process", "heartbeat.interval": 20.0},
    ],
)
def test_the_answer_of_a_child_changes_nothing_that_needs_a_restart(changes):
    fact = with_settings_checked(answer_with(changes), IN_FORCE)
    assert fact.settings is None
    assert f"cannot change at run time: {next(iter(changes))}" in fact.faults
    vm, effects = live(idle(), fact)
    assert not [each for each in effects if isinstance(each, Adopt)]
    assert events(effects)[-1].outcome == "rejected"


@pytest.mark.parametrize(
    "settings",
    [{}, {"runner": {"user": None}}, {**IN_FORCE.as_dict(), "heartbeat": 7}],
)
def test_the_answer_of_a_child_is_no_settings_if_it_is_not_whole(settings):
    fact = CommandExamined("c-1", "UpdateConfig", {}, settings=settings)
    checked = with_settings_checked(fact, IN_FORCE)
    assert checked.settings is None and "malformed settings" in checked.faults[0]


def test_a_command_is_open_from_its_acceptance_to_its_answer():
    order = CommandReceived("c", "drain", {})
    vm, effects = step(idle(), order, NOW)
    assert effects == [AcceptCommand(order)]
    assert vm.commands == {"c": "Drain"}
    vm, _ = step(vm, CommandExamined("c", "drain", {}), NOW)
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
    late = CommandExamined("c", "Shutdown", {"mode": "immediate"})
    assert step(busy(), late, NOW) == (busy(), [])


def test_a_new_heartbeat_sender_is_told_to_renew_the_credentials_again():
    vm, _ = live(idle(), CommandExamined("c", "RotateCredentials", {}))
    new = WorkerStarted("heartbeat-sender", 4711, 1, 1)
    vm, effects = step(vm, new, NOW)
    assert Tell(RenewCredentials("c")) in effects
    vm, effects = live(vm, CredentialsRenewed("c", None), CredentialsRenewed("c", None))
    assert [each.outcome for each in events(effects)] == ["done"]


def test_the_end_of_the_machine_answers_what_is_still_open():
    vm, effects = live(
        fresh(),
        CommandReceived("c", "SetLogLevel", {}),
        CommandExamined("d", "Shutdown", {"mode": "immediate"}),
    )
    answers = {
        each.command_id: each.outcome
        for each in events(effects)[:-1]
        if hasattr(each, "command_id")
    }
    assert answers == {"c": "failed", "d": "done"}
    assert events(effects)[-1].type == "VMStopped"
