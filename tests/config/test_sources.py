"""Layers: who wins, what is unknown, every mistake at once, and what falls back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from miglet.config.load import load
from miglet.config.schema import ATTRIBUTE_NAMES, ENVIRONMENT_NAMES, KEYS
from miglet.config.sources import (
    RESERVED,
    Layer,
    Layers,
    attributes_layer,
    command_line_layer,
    document_layer,
    environment_layer,
    layers_of,
    overlay_layer,
)
from miglet.errors import MISCONFIGURED, Misconfigured
from tests.config.needed import NEEDED

#: The highest priority first.
ORDER = ["update", "command_line", "metadata", "environment", "file", "machine"]
PAIRS = list(itertools.combinations(ORDER, 2))


def layer(name: str, values: Mapping[str, object]) -> Layer:
    return overlay_layer(name, values)


def complete(**layers: Layer) -> Layers:
    """`layers` over a file with all that is needed."""
    file = layers.pop("file", Layer("file"))
    return Layers(file=file.over(layer("base", NEEDED)), **layers)


def faults_of(layers: Layers):
    with pytest.raises(Misconfigured) as caught:
        load(layers)
    assert caught.value.exit_status == MISCONFIGURED
    return caught.value.faults


@pytest.mark.parametrize(("upper", "lower"), PAIRS)
def test_the_higher_layer_of_every_pair_wins_and_names_the_other(upper, lower):
    layers = complete(
        **{
            upper: layer(upper, {"heartbeat.interval": "7s"}),
            lower: layer(lower, {"heartbeat.interval": "8s"}),
        }
    )
    loaded = load(layers)
    assert loaded.settings.heartbeat.interval == 7.0
    assert loaded.origins["heartbeat.interval"] == (
        upper,
        ((lower, "8s"), ("default", "15s")),
    )


def test_what_no_layer_sets_comes_from_the_defaults():
    loaded = load(complete())
    assert loaded.settings.heartbeat.interval == 15.0
    assert loaded.origins["heartbeat.interval"] == ("default", ())


def test_the_machine_names_itself_where_nobody_else_does():
    needed = {key: text for key, text in NEEDED.items() if key != "vm_id"}
    machine = layer("instance id", {"vm_id": "i-123"})
    loaded = load(Layers(file=layer("file", needed), machine=machine))
    assert loaded.settings.vm_id == "i-123"
    assert load(complete(machine=machine)).settings.vm_id == "vm-1"


def test_variables_of_others_and_reserved_ones_are_no_settings():
    environ = dict.fromkeys([*RESERVED, "PATH", "miglet_pool_id"], "x")
    assert environment_layer(environ) == Layer("environment")


def test_every_key_has_names_of_its_own():
    assert len(ENVIRONMENT_NAMES) == len(ATTRIBUTE_NAMES) == len(KEYS)
    assert not RESERVED & set(ENVIRONMENT_NAMES)
    assert KEYS["controller.retry.max_attempts"].attribute_name in ATTRIBUTE_NAMES
    name = "MIGLET_CONTROLLER_RETRY_MAX_ATTEMPTS"
    assert ENVIRONMENT_NAMES[name] == "controller.retry.max_attempts"
    name = "miglet-controller-retry-max-attempts"
    assert ATTRIBUTE_NAMES[name] == "controller.retry.max_attempts"


UNKNOWN = [
    (document_layer("f", "polid: x"), "polid", "f:1", "pool_id"),
    (document_layer("f", "endpoint: x"), "endpoint", "f:1", "controller.endpoint"),
    (
        document_layer("f", "a: 1\nheartbeat:\n  intervall: 1"),
        "heartbeat.intervall",
        "f:3",
        "heartbeat.interval",
    ),
    (
        document_layer("f", "controler:\n  timeout: 1"),
        "controler",
        "f:1",
        "controller",
    ),
    (
        overlay_layer("UpdateConfig", {"features": {"perf_log": True}}),
        "features.perf_log",
        "UpdateConfig",
        "features.perflog",
    ),
    (
        environment_layer({"MIGLET_POOLID": "x"}),
        "poolid",
        "environment MIGLET_POOLID",
        "MIGLET_POOL_ID",
    ),
    (
        attributes_layer("metadata", {"miglet-vmid": "x"}),
        "vmid",
        "metadata miglet-vmid",
        "miglet-vm-id",
    ),
    (
        command_line_layer(["org=x"]),
        "org",
        "command line --set org",
        "github.org",
    ),
]


@pytest.mark.parametrize(("wrong", "key", "source", "nearest"), UNKNOWN)
def test_an_unknown_key_names_the_nearest_known_one(wrong, key, source, nearest):
    fault = next(f for f in faults_of(complete(metadata=wrong)) if f.key == key)
    assert fault.source == source
    assert fault.reason == "is not a known setting"
    assert fault.hint == f"did you mean {nearest}?"


def test_a_key_like_no_other_gets_no_hint():
    (fault,) = faults_of(complete(metadata=document_layer("f", "zzzzqqqq: 1")))
    assert fault.hint == ""


def test_an_option_without_a_value_says_what_was_expected():
    (fault,) = faults_of(complete(command_line=command_line_layer(["pool_id"])))
    assert fault == ("", "command line --set pool_id", "expected key=value", "")


def test_the_last_option_of_a_key_counts_and_may_contain_equals_signs():
    options = ["github.runner_group=a", "github.runner_group=b=c"]
    loaded = load(complete(command_line=command_line_layer(options)))
    assert loaded.settings.github.runner_group == "b=c"


def test_single_attributes_go_before_the_attribute_that_is_a_document():
    attributes = {
        "miglet-config": "heartbeat: {interval: 1s, timeout: 2s}",
        "Miglet_Heartbeat_Interval": "1.5s",
        "user-data": "#!/bin/sh",
    }
    loaded = load(complete(metadata=attributes_layer("metadata", attributes)))
    assert loaded.settings.heartbeat.interval == 1.5
    assert loaded.settings.heartbeat.timeout == 2.0
    assert loaded.origins["heartbeat.timeout"].source == "metadata miglet-config:1"


def test_every_mistake_is_reported_at_once(tmp_path):
    file = tmp_path / "miglet.yaml"
    file.write_text("pool_id: a b\nheartbeat:\n  interval: soon\n  jitter: 1\n")
    environ = {"MIGLET_LOGGING_LEVEL": "loud", "MIGLET_POOL": "x"}
    attributes = {"miglet-runner-user": "a:b", "miglet-x": "y"}
    metadata = attributes_layer("metadata", attributes)
    options = ["controller.auth.type=mtls", "controller.endpoint=http://far.example"]
    faults = faults_of(layers_of(environ, options, str(file), metadata))
    assert {(fault.key, fault.source) for fault in faults} == {
        ("pool_id", f"{file}:1"),
        ("heartbeat.interval", f"{file}:3"),
        ("heartbeat.jitter", f"{file}:4"),
        ("logging.level", "environment MIGLET_LOGGING_LEVEL"),
        ("pool", "environment MIGLET_POOL"),
        ("runner.user", "metadata miglet-runner-user"),
        ("x", "metadata miglet-x"),
        ("controller.endpoint", "command line --set controller.endpoint"),
        ("controller.auth.certificate_path", "command line --set controller.auth.type"),
        ("controller.auth.key_path", "command line --set controller.auth.type"),
        ("vm_id", "not set"),
        ("org_id", "not set"),
    }


def test_a_missing_key_tells_the_ways_to_set_it():
    faults = faults_of(Layers())
    assert [f.key for f in faults] == [*NEEDED]
    assert faults[0].reason.startswith("is required: ")
    assert ".;" not in str(faults[0])
    for way in ("pool_id: pool-123", "MIGLET_POOL_ID", "miglet-pool-id"):
        assert way in faults[0].hint


def test_a_source_that_cannot_be_used_is_not_blamed_for_what_it_may_have_set():
    faults = faults_of(Layers(file=document_layer("f", "pool_id: [")))
    assert [fault.key for fault in faults] == [""]


def test_a_wrong_value_that_is_overridden_does_no_harm_but_is_shown():
    layers = complete(
        environment=layer("environment", {"heartbeat.interval": "5s"}),
        file=layer("file", {"heartbeat.interval": "soon"}),
    )
    loaded = load(layers)
    assert loaded.settings.heartbeat.interval == 5.0
    assert loaded.origins["heartbeat.interval"].overrides[0] == ("file", "'soon'")


TOGETHER = [
    ({"heartbeat.timeout": "1s"}, "heartbeat.timeout", "(1s < 15s)"),
    ({"heartbeat.interval": "2m"}, "heartbeat.timeout", "heartbeat.interval"),
    (
        {"controller.retry.initial_backoff": "1m"},
        "controller.retry.max_backoff",
        "controller.retry.initial_backoff",
    ),
    ({"controller.auth.token_path": ""}, "controller.auth.token_path", "bearer"),
    (
        {"controller.auth.type": "mtls", "controller.auth.key_path": "/k"},
        "controller.auth.certificate_path",
        "mtls",
    ),
    (
        {"github.token_source": "metadata", "github.org": "o"},
        "github.metadata_path",
        "token_source is metadata",
    ),
    (
        {"github.token_source": "metadata", "github.metadata_path": "p"},
        "github.org",
        "token_source is metadata",
    ),
    ({"paths.runtime": "/var/lib/miglet"}, "paths.runtime", "same folder"),
]


@pytest.mark.parametrize(("values", "key", "words"), TOGETHER)
def test_settings_that_do_not_go_together_are_a_fault(values, key, words):
    (fault,) = faults_of(complete(environment=layer("environment", values)))
    assert (fault.key, fault.source) == (key, "environment")
    assert words in fault.reason


def test_a_rule_is_not_asked_about_a_value_that_is_wrong_by_itself():
    values = {"heartbeat.interval": "2h", "heartbeat.timeout": "1s"}
    (fault,) = faults_of(complete(environment=layer("environment", values)))
    assert fault.key == "heartbeat.interval"


PLAIN_HTTP = ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:9"]


@pytest.mark.parametrize("host", PLAIN_HTTP)
def test_plain_http_is_good_enough_for_loopback(host):
    values = {"controller.endpoint": f"http://{host}/base"}
    load(complete(environment=layer("environment", values)))


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1.example", "localhost.example"])
def test_plain_http_elsewhere_must_be_allowed(host):
    values = {"controller.endpoint": f"http://{host}"}
    (fault,) = faults_of(complete(environment=layer("environment", values)))
    assert "allow_insecure" in fault.reason
    values["controller.allow_insecure"] = "yes"
    load(complete(environment=layer("environment", values)))


def test_a_required_key_that_is_empty_is_one_fault_and_not_missing_too():
    empty = environment_layer({"MIGLET_POOL_ID": " "})
    (fault,) = faults_of(complete(environment=empty))
    assert fault.source == "environment MIGLET_POOL_ID"
    assert fault.reason.startswith("is empty; expected 1 to 128 printable")
