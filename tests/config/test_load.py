"""Changes at run time: judged whole by the same rules, or refused whole."""

from __future__ import annotations

import pytest

from miglet.config.load import load, reload, update
from miglet.config.schema import KEYS
from miglet.config.settings import RUNTIME_KEYS
from miglet.config.sources import Layers, overlay_layer
from miglet.errors import Misconfigured

NEEDED = {
    "pool_id": "pool-1",
    "vm_id": "vm-1",
    "org_id": "org-1",
    "controller.endpoint": "https://controller.example",
    "heartbeat.timeout": "40s",
}

LATER = "may not change at run time: takes effect with the next start"

#: Keys that were promised to change at run time; others may come.
PROMISED = {
    "heartbeat.interval",
    "heartbeat.timeout",
    "logging.level",
    "logging.redact_secrets",
    "metrics.collection_interval",
    "metrics.include_disk",
    "metrics.include_network",
    "controller.command_wait",
    "controller.command_interval",
    "controller.timeout",
    "controller.retry.max_attempts",
    "controller.retry.initial_backoff",
    "controller.retry.max_backoff",
    "runner.after_job",
    "runner.idle_timeout",
    "runner.max_job_duration",
    "runner.ghost_timeout",
    "runner.finish_timeout",
    "runner.orphan_timeout",
    "shutdown.delivery_timeout",
    "runner.drain_settle",
    "shutdown.grace_period",
    "shutdown.force_after",
    "shutdown.action",
}


def layers(**more: object) -> Layers:
    return Layers(file=overlay_layer("file", {**NEEDED, **more}))


CURRENT = load(layers())


def faults_of(action, *arguments):
    with pytest.raises(Misconfigured) as caught:
        action(*arguments)
    return caught.value.faults


def test_what_may_change_at_run_time_is_what_was_promised_and_is_marked_so():
    assert {key.name for key in KEYS.values() if key.runtime} == RUNTIME_KEYS
    assert PROMISED <= RUNTIME_KEYS


@pytest.mark.parametrize(
    "overlay",
    [
        {"heartbeat": {"interval": "5s"}, "logging": {"level": "debug"}},
        {"heartbeat.interval": 5, "logging.level": "DEBUG"},
        {"heartbeat": {"interval": 5.0}, "logging.level": "debug"},
    ],
)
def test_nested_and_dotted_overlays_change_the_settings(overlay):
    after = update(CURRENT, overlay)
    assert after.settings.heartbeat.interval == 5.0
    assert after.settings.logging.level == "debug"
    same = {"heartbeat.interval": 15.0, "logging.level": "info"}
    assert after.settings.replaced(same) == CURRENT.settings


def test_an_update_is_the_source_of_what_it_set_and_names_what_it_overrode():
    after = update(CURRENT, {"heartbeat.timeout": "50s"})
    assert after.origins["heartbeat.timeout"] == (
        "UpdateConfig",
        (("file", "40s"), ("default", "1m")),
    )
    again = update(after, {"heartbeat.timeout": "55s"})
    assert again.origins == after.origins
    assert again.settings.heartbeat.timeout == 55.0


def test_the_settings_before_an_update_are_not_touched():
    before, origins = CURRENT.settings.as_dict(), dict(CURRENT.origins)
    update(CURRENT, {"heartbeat.interval": 5})
    faults_of(update, CURRENT, {"heartbeat.interval": 5, "pool_id": "other"})
    assert CURRENT.settings.as_dict() == before
    assert CURRENT.origins == origins


@pytest.mark.parametrize("key", sorted(set(KEYS) - RUNTIME_KEYS))
def test_a_key_that_must_wait_is_refused_unless_it_is_the_same(key):
    same = CURRENT.settings.flat()[key]
    assert update(CURRENT, {key: same}).settings == CURRENT.settings
    faults = faults_of(update, CURRENT, {key: different(key), "heartbeat.interval": 5})
    assert (key, "UpdateConfig", LATER, "") in faults


def different(key):
    rules = KEYS[key].rules
    words = [word for word in rules.get("enum", ()) if word != rules["default"]]
    kind = KEYS[key].kind
    if words:
        return words[0]
    if kind == "text":
        path = "127.0.0.1:1" if key == "metrics.listen" else "/x"
        return {
            "controller.endpoint": "https://x",
            "controller.proxy": "https://x",
            "runner.proxy": "https://x",
        }.get(key, "x" if fits_a_word(rules) else path)
    changed = {"boolean": not rules["default"], "list": ["/x"]}
    return changed.get(kind, "61")


def fits_a_word(rules):
    expected = rules.get("x-expected", "")
    return "absolute" not in expected and "port" not in expected


def test_an_update_is_judged_together_with_what_stays():
    (fault,) = faults_of(update, CURRENT, {"heartbeat.interval": "50s"})
    assert fault.key == "heartbeat.timeout"
    assert "(40s < 50s)" in fault.reason


def test_every_reason_against_an_update_is_reported():
    overlay = {
        "heartbeat": {"interval": "soon", "intervall": 1},
        "logging.level": "loud",
        "pool_id": "other",
        "org_id": "a b",
    }
    faults = faults_of(update, CURRENT, overlay)
    assert {(fault.key, fault.source) for fault in faults} == {
        ("heartbeat.interval", "UpdateConfig"),
        ("heartbeat.intervall", "UpdateConfig"),
        ("logging.level", "UpdateConfig"),
        ("pool_id", "UpdateConfig"),
        ("org_id", "UpdateConfig"),
    }


@pytest.mark.parametrize("overlay", [None, [], "heartbeat", 5, [{"a": 1}]])
def test_an_update_that_is_no_object_is_refused(overlay):
    (fault,) = faults_of(update, CURRENT, overlay)
    assert fault.reason == "expected an object of settings"


def test_a_deep_update_is_refused_like_any_other():
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    (fault,) = faults_of(update, CURRENT, {"heartbeat.interval": deep})
    assert "found a list" in fault.reason
    (fault,) = faults_of(update, CURRENT, {"x": deep})
    assert fault.reason == "is not a known setting"


def test_an_empty_update_changes_nothing():
    assert update(CURRENT, {}) == CURRENT


def test_a_reload_takes_what_may_change():
    after = reload(CURRENT, layers(**{"heartbeat.interval": "3s"}))
    assert after.settings.heartbeat.interval == 3.0


def test_a_reload_with_a_key_that_must_wait_is_refused_whole():
    changed = {"heartbeat.interval": "3s", "metrics.listen": "127.0.0.1:1"}
    faults = faults_of(reload, CURRENT, layers(**changed))
    assert faults == [("metrics.listen", "file", LATER, "")]


def test_a_reload_names_mistakes_as_the_start_does():
    (fault,) = faults_of(reload, CURRENT, layers(**{"logging.level": "loud"}))
    assert fault.key == "logging.level"


def test_a_key_removed_from_the_file_goes_back_to_its_default():
    values = {key: text for key, text in NEEDED.items() if key != "heartbeat.timeout"}
    after = reload(CURRENT, Layers(file=overlay_layer("file", values)))
    assert after.settings.heartbeat.timeout == 60.0


def test_an_update_outlives_a_reload():
    overlay = {"runner.idle_timeout": "0.00001s", "controller.timeout": "7s"}
    updated = update(CURRENT, {**overlay, "metrics.include_disk": False})
    reread = layers(**{"runner.idle_timeout": "9s", "logging.level": "debug"})
    after = reload(updated, reread)
    assert after.settings.runner.idle_timeout == 0.00001
    assert after.settings.controller.timeout == 7.0
    assert not after.settings.metrics.include_disk
    assert after.settings.logging.level == "debug"
    assert after.origins["runner.idle_timeout"].source == "UpdateConfig"
    assert after.origins["runner.idle_timeout"].overrides[0] == ("file", "9s")
