"""Settings as a value: read by attribute, compared, never changed, cheap to import."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest

from miglet.config.schema import KEYS, SCHEMA, SECTIONS
from miglet.config.settings import Settings

NESTED = {
    "pool_id": "p",
    "controller": {"timeout": 30.0, "retry": {"max_attempts": 5}},
    "github": {"labels": ["a", "b"]},
}
FLAT = {
    "pool_id": "p",
    "controller.timeout": 30.0,
    "controller.retry.max_attempts": 5,
    "github.labels": ["a", "b"],
}
SETTINGS = Settings.of(NESTED)


def test_settings_are_read_by_attribute_and_by_dotted_key():
    assert SETTINGS.controller.retry.max_attempts == 5
    assert SETTINGS["controller.retry.max_attempts"] == 5
    assert SETTINGS["controller.retry"] == SETTINGS.controller.retry
    assert SETTINGS.github.labels == ("a", "b")


def test_nested_dotted_and_mixed_mappings_make_the_same_settings():
    mixed = {
        "pool_id": "p",
        "controller.timeout": 30.0,
        "controller": {"retry.max_attempts": 5},
        "github.labels": ["a", "b"],
    }
    assert Settings.of(FLAT) == Settings.of(mixed) == SETTINGS
    assert hash(Settings.of(FLAT)) == hash(SETTINGS)


def test_a_missing_setting_is_named_with_its_whole_key():
    with pytest.raises(AttributeError, match=r"controller\.retry\.max_attemps"):
        SETTINGS.controller.retry.max_attemps  # noqa: B018
    with pytest.raises(KeyError, match=r"controller\.nothing"):
        SETTINGS["controller.nothing"]


def test_settings_do_not_change():
    with pytest.raises(AttributeError, match=r"controller\.timeout"):
        SETTINGS.controller.timeout = 1
    with pytest.raises(AttributeError):
        del SETTINGS.pool_id


def test_what_settings_were_made_of_may_change_without_them():
    source = json.loads(json.dumps(NESTED))
    settings = Settings.of(source)
    source["controller"]["timeout"] = 1
    source["github"]["labels"].append("c")
    assert settings == SETTINGS


def test_settings_go_through_json_and_back():
    assert SETTINGS.as_dict() == NESTED
    assert Settings.of(json.loads(json.dumps(SETTINGS.as_dict()))) == SETTINGS
    assert SETTINGS.flat() == FLAT
    assert list(SETTINGS) == list(FLAT)


def test_replaced_settings_are_other_settings():
    other = SETTINGS.replaced({"controller.timeout": 1.0})
    assert other != SETTINGS
    assert other.controller.timeout == 1.0
    assert SETTINGS.controller.timeout == 30.0
    assert other.replaced({"controller.timeout": 30.0}) == SETTINGS


def test_a_section_can_be_replaced_and_still_names_its_keys():
    retry = SETTINGS.controller.replaced({"retry.max_attempts": 9}).retry
    assert retry.max_attempts == 9
    with pytest.raises(AttributeError, match=r"controller\.retry\.nothing"):
        retry.nothing  # noqa: B018


def test_settings_are_copied_and_pickled():
    assert copy.deepcopy(SETTINGS) == SETTINGS
    assert pickle.loads(pickle.dumps(SETTINGS)) == SETTINGS


def test_settings_are_not_printed_with_their_values():
    settings = Settings.of({"controller": {"proxy": "http://me:hunter2@proxy"}})
    assert "hunter2" not in repr(settings) + repr(settings.controller)


def test_settings_are_equal_to_nothing_else():
    assert SETTINGS != NESTED


def test_no_key_is_hidden_by_a_method():
    names = {part for key in [*KEYS, *SECTIONS] for part in key.split(".")}
    assert not names & set(dir(Settings))


def test_every_key_says_what_it_is():
    for key in KEYS.values():
        assert key.rules["description"].endswith("."), key.name
        assert "x-runtime" in key.rules, key.name
        assert key.required == ("default" not in key.rules), key.name
        assert not key.required or key.rules["examples"], key.name


def test_the_schema_is_a_draft_7_schema():
    import jsonschema

    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert "draft-07" in SCHEMA["$schema"]


def test_the_parent_pays_for_neither_yaml_nor_json_schema():
    program = (
        "import sys; import miglet.config.settings, miglet.config.explanation;"
        "print(sorted({'yaml', 'jsonschema'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
