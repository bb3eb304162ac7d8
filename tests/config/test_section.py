"""A group of settings: typed, complete, immutable."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from miglet.config.schema import KEYS
from miglet.config.section import MalformedSettings
from miglet.config.settings import Settings
from tests.cases import check_each
from tests.sample_settings import sample_settings

SETTINGS = sample_settings({"github.labels": ["a", "b"]})


NESTED = SETTINGS.as_dict()


FLAT = SETTINGS.flat()


def test_settings_are_read_by_attribute():
    assert SETTINGS.controller.retry.max_attempts == 5
    assert SETTINGS.github.labels == ("a", "b")


def test_nested_dotted_and_mixed_mappings_make_the_same_settings():
    mixed = json.loads(json.dumps(NESTED))
    retry = mixed["controller"].pop("retry")
    mixed["controller"]["retry.max_attempts"] = retry.pop("max_attempts")
    mixed |= {f"controller.retry.{name}": value for name, value in retry.items()}
    assert Settings.of(FLAT) == Settings.of(mixed) == SETTINGS
    assert hash(Settings.of(FLAT)) == hash(SETTINGS)


def test_settings_do_not_change():
    with pytest.raises(AttributeError, match="timeout"):
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
    assert Settings.of(json.loads(json.dumps(NESTED))) == SETTINGS
    assert Settings.of(json.loads(json.dumps(FLAT))) == SETTINGS
    assert list(SETTINGS) == list(FLAT) == list(KEYS)


def test_a_whole_number_of_seconds_becomes_a_float():
    settings = SETTINGS.replaced({"controller.timeout": 3})
    assert type(settings.controller.timeout) is float


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pool_id", 7),
        ("pool_id", None),
        ("controller", "text"),
        ("controller.proxy", ["x"]),
        ("controller.timeout", "30s"),
        ("controller.timeout", True),
        ("controller.timeout", float("nan")),
        ("controller.timeout", float("inf")),
        ("controller.retry.max_attempts", 1.5),
        ("controller.retry.max_attempts", True),
        ("controller.auth.type", "password"),
        ("github.labels", "a,b"),
        ("github.labels", ["a", 1]),
        ("metrics.include_disk", 1),
        ("metrics.include_dusk", True),
        ("shutdown.action.now", True),
    ],
)
def test_a_mapping_that_is_no_configuration_is_refused_by_the_whole_key(key, value):
    with pytest.raises(MalformedSettings) as caught:
        Settings.of({**FLAT, key: value})
    assert str(caught.value).startswith(key.removesuffix(".now"))


def test_each_missing_key_is_named():
    check_each(KEYS, is_named_when_missing)


def is_named_when_missing(key):
    with pytest.raises(MalformedSettings, match=key.rpartition(".")[2]):
        Settings.of({name: value for name, value in FLAT.items() if name != key})


def test_replaced_settings_are_other_settings():
    other = SETTINGS.replaced({"controller.timeout": 1.0})
    assert other != SETTINGS
    assert other.controller.timeout == 1.0
    assert SETTINGS.controller.timeout == 30.0
    assert other.replaced({"controller.timeout": 30.0}) == SETTINGS


def test_a_section_can_be_replaced():
    controller = SETTINGS.controller.replaced({"retry.max_attempts": 9})
    assert controller.retry.max_attempts == 9


def test_settings_are_copied_and_pickled():
    assert copy.deepcopy(SETTINGS) == SETTINGS
    assert pickle.loads(pickle.dumps(SETTINGS)) == SETTINGS


def test_settings_are_not_printed_with_their_values():
    settings = sample_settings({"controller.proxy": "http://me:hunter2@proxy"})
    assert "hunter2" not in repr(settings) + repr(settings.controller)


def test_settings_are_equal_to_nothing_else():
    assert SETTINGS != NESTED
