"""Commands are held against their schema before anything is done."""

from __future__ import annotations

import pytest

from miglet.commands.validation import command_faults
from miglet.config.load import Loaded, Origin, explanation
from miglet.config.schema import KEYS
from miglet.lifecycle.effects import ChangeLevel
from tests.commands.validated import validated
from tests.histories import idle, live
from tests.sample_settings import sample_settings


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
    fact = validated(command, [], CURRENT)
    assert fact.faults == []
    assert fact.settings["heartbeat"]["interval"] == 1.0


@pytest.mark.parametrize("key", [key for key in KEYS if key.endswith("_path")])
def test_the_controller_cannot_say_where_credentials_are_read(key):
    parameters = {key: "/etc/shadow"}
    command = {"id": "c", "type": "UpdateConfig", "parameters": parameters}
    fact = validated(command, [], CURRENT)
    assert fact.settings is None
    assert "may not change at run time" in fact.faults[0]


@pytest.mark.parametrize("level", ["debug", "DEBUG", "Warning", "warn", "WARN"])
def test_a_level_is_taken_in_any_case(level):
    fact = validated(
        {"id": "c", "type": "SetLogLevel", "parameters": {"level": level}}, [], {}
    )
    _, effects = live(idle(), fact)
    names = {"warn": "warning"}
    wanted = names.get(level.lower(), level.lower())
    assert ChangeLevel(wanted) in effects
