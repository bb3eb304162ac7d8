"""Values are read the same way from every source, and written back as read."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.config.load import load
from miglet.config.schema import (
    KEYS,
    Key,
    duration_text,
    parse_duration,
    parse_size,
    size_text,
)
from miglet.config.settings import Settings
from miglet.config.sources import (
    Layer,
    Layers,
    attributes_layer,
    command_line_layer,
    document_layer,
    environment_layer,
    layers_of,
    overlay_layer,
)
from miglet.errors import Misconfigured
from tests.cases import check_each
from tests.config.needed import NEEDED

#: A value other than the default for the keys whose rules allow no arbitrary one.
SPECIAL = {
    "github.token_source": "metadata",
    "runner.isolation": "process",
    "controller.auth.type": "none",
}


#: What makes the odd value above valid.
ROOM = {"heartbeat.timeout": "2m", "controller.retry.max_backoff": "2m"}


COMPANIONS = {"github.metadata_path": "instance/token", "github.org": "octo"}


def as_document(key: str, text: str) -> Layer:
    return document_layer("file", f"{key}: {text!r}")


def as_nested_document(key: str, text: str) -> Layer:
    *sections, leaf = key.split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(sections)]
    return document_layer(
        "file", "\n".join([*lines, f"{'  ' * len(sections)}{leaf}: {text}"])
    )


def as_environment(key: str, text: str) -> Layer:
    return environment_layer({KEYS[key].environment_name: text})


def as_attribute(key: str, text: str) -> Layer:
    return attributes_layer("metadata", {KEYS[key].attribute_name: text})


def as_option(key: str, text: str) -> Layer:
    return command_line_layer([f"{key}={text}"])


def as_overlay(key: str, text: str) -> Layer:
    return overlay_layer("UpdateConfig", {key: text})


SOURCES = [
    as_document,
    as_nested_document,
    as_environment,
    as_attribute,
    as_option,
    as_overlay,
]


def value_at(settings: Settings, key: str):
    """The value of a dotted key, as attributes give it."""
    return functools.reduce(getattr, key.split("."), settings)


def read(layer: Layer, key: str):
    base = overlay_layer("base", {**NEEDED})
    return value_at(load(Layers(command_line=layer, file=base)).settings, key)


def refusal(layer: Layer):
    with pytest.raises(Misconfigured) as caught:
        read(layer, "pool_id")
    (fault,) = caught.value.faults
    return fault


def another(key: Key) -> tuple[str, object]:
    """Text and value of `key` that are not its default."""
    if key.name in SPECIAL:
        return SPECIAL[key.name], SPECIAL[key.name]
    if "enum" in key.rules:
        word = next(w for w in key.rules["enum"] if w != key.rules["default"])
        return word, word
    return {
        "duration": ("1m1s", 61.0),
        "size": ("7MiB", 7 * 1024 * 1024),
        "integer": ("7", 7),
        "boolean": ("on", True)
        if key.rules.get("default") is False
        else ("off", False),
        "auto or boolean": ("on", True),
        "list": ("/a, /b", ("/a", "/b")),
        "text": fitting_text(key),
    }[key.kind]


def fitting_text(key: Key) -> tuple[str, object]:
    if key.name == "metrics.listen":
        return ("127.0.0.1:9469",) * 2
    if key.name.endswith((".endpoint", ".proxy")):
        return ("https://other.example:8443",) * 2
    return (
        "/some/where" if "path" in str(key.rules.get("x-expected")) else "other",
    ) * 2


every_source = pytest.mark.parametrize("source", SOURCES)


@every_source
def test_every_key_is_settable_from_every_source(source):
    def is_settable(name):
        key = KEYS[name]
        text, value = another(key)
        base = {**NEEDED, **COMPANIONS, **ROOM}
        base.pop(name, None)
        layers = Layers(update=source(name, text), file=overlay_layer("base", base))
        loaded = load(layers)
        assert value_at(loaded.settings, name) == value
        assert value_at(loaded.settings, name) != key.rules.get("default")
        assert loaded.origins[name].source != "default"

    check_each(KEYS, is_settable)


GOOD = [
    ("controller.timeout", "200ms", 0.2),
    ("controller.timeout", "15", 15.0),
    ("controller.timeout", "1.5", 1.5),
    ("controller.timeout", " 5m ", 300.0),
    ("shutdown.force_after", "1h30m", 5400.0),
    ("shutdown.force_after", "1h2m3s4ms", 3723.004),
    ("runner.idle_timeout", "0", 0.0),
    ("logging.level", "Warn", "warning"),
    ("runner.block_metadata", "AUTO", "auto"),
    ("runner.block_metadata", "no", False),
    ("runner.block_metadata", "yes", True),
    ("bootstrap.min_free_disk", "5GB", 5 * 10**9),
    ("bootstrap.min_free_disk", "512MiB", 512 * 1024**2),
    ("bootstrap.min_free_disk", "100kB", 100_000),
    ("bootstrap.min_free_disk", "100kb", 100_000),
    ("bootstrap.min_free_disk", "1.5GiB", 3 * 1024**3 // 2),
    ("bootstrap.min_free_disk", "1024", 1024),
    ("github.labels", "linux,x64 , gpu", ("linux", "x64", "gpu")),
    ("github.labels", "only", ("only",)),
    ("bootstrap.mounts", "", ()),
    ("controller.proxy", "", None),
    ("controller.proxy", "null", None),
    ("controller.proxy", "NULL", None),
    ("runner.user", "", None),
    ("logging.level", "INFO", "info"),
    ("bootstrap.docker", "off", "off"),
    ("pool_id", "0123", "0123"),
    ("pool_id", "12:30", "12:30"),
    ("metrics.listen", "[::1]:9469", "[::1]:9469"),
    *[("features.perflog", word, False) for word in ("false", "No", "OFF", "0")],
    *[("features.perflog", word, True) for word in ("true", "Yes", "ON", "1")],
]


@every_source
def test_a_good_value_means_the_same_in_every_source(source):
    def means_the_same(case):
        key, text, value = case
        if source is as_nested_document:
            text = repr(text) if text.startswith("[") else text.strip()
        assert read(source(key, text), key) == value

    check_each(GOOD, means_the_same)


BAD = [
    ("controller.timeout", "5 m", "a duration such as", "'5 m'"),
    ("controller.timeout", "-5", "a duration such as", "'-5'"),
    ("controller.timeout", "5m1h", "a duration such as", "'5m1h'"),
    ("controller.timeout", "1e3", "a duration such as", "'1e3'"),
    ("controller.timeout", "inf", "a duration such as", "'inf'"),
    ("controller.timeout", "9" * 5000, "a duration such as", "99…"),
    ("controller.timeout", "10ms", "at least 50ms", "found 10ms"),
    ("controller.timeout", "11m", "at most 10m", "found 11m"),
    ("bootstrap.min_free_disk", "5G", "a size such as", "'5G'"),
    ("bootstrap.min_free_disk", "2000TB", "at most 1000TB", "found 2000TB"),
    ("controller.retry.max_attempts", "0", "at least 1", "found 0"),
    ("controller.retry.max_attempts", "1.5", "a whole number", "'1.5'"),
    ("controller.retry.max_attempts", "٣", "a whole number", "'٣'"),
    ("features.perflog", "maybe", "true or false", "'maybe'"),
    ("logging.level", "loud", "one of debug, info, warning, error", "'loud'"),
    ("pool_id", "a b", "without space or slash", "'a b'"),
    ("pool_id", "a/b", "without space or slash", "'a/b'"),
    ("pool_id", "..", "not . or ..", "'..'"),
    ("pool_id", "x" * 129, "1 to 128", "xx…"),
    ("pool_id", "é", "printable ASCII", "'é'"),
    ("runner.directory", "opt/runner", "an absolute path", "'opt/runner'"),
    ("paths.runtime", "/" + "x" * 90, "at most 90 characters", "xx…"),
    ("github.labels", "a,,b", "is empty", "labels"),
    ("github.labels", "a,a", "the same member twice", ""),
    ("github.labels", "-x", "do not begin with -", "'-x'"),
    ("github.labels", "", "labels of 1 to 256", "found a list"),
    ("bootstrap.mounts", "mnt", "absolute paths", "'mnt'"),
    ("runner.user", "a:b", "the name of a user", "'a:b'"),
    ("metrics.listen", "9469", "an address and a port", "'9469'"),
    ("metrics.listen", "localhost:70000", "port 70000", "65535"),
    ("controller.endpoint", "ftp://x", "begins with https://", "'ftp://x'"),
    ("controller.endpoint", "https://x:y", "a valid host and port", ""),
    ("controller.endpoint", "https://[::1", "a valid host and port", ""),
    ("controller.endpoint", "https://x?y=1", "a query or a fragment", ""),
    ("controller.endpoint", "http://controller.example", "for loopback only", ""),
]


BAD = [
    (key, text, wanted, found)
    for key, text, wanted, found in BAD
    if "1PB" not in wanted
]


@every_source
def test_a_bad_value_is_one_fault_that_says_what_was_expected(source):
    def is_one_fault(case):
        key, text, wanted, found = case
        if source is as_nested_document and not text:
            text = "''"
        fault = refusal(source(key, text))
        assert fault.key == key
        assert wanted in fault.reason
        assert found in fault.reason
        assert fault.source

    check_each(BAD, is_one_fault)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([1], "found a list"),
        ({"a": 1}, "found a mapping"),
        (None, "is empty"),
        ("", "is empty"),
        (True, "found 'true'"),
        (float("nan"), "found 'nan'"),
        (float("inf"), "found 'inf'"),
        (10**30, "a duration such as"),
    ],
)
def test_a_json_value_of_another_shape_is_named_by_its_shape(raw, words):
    assert words in refusal(overlay_layer("x", {"controller.timeout": raw})).reason


@pytest.mark.parametrize("raw", [[["a"]], [{"a": "b"}], {"a": 1}, [None]])
def test_a_list_holds_texts_only(raw):
    fault = refusal(overlay_layer("x", {"github.labels": raw}))
    assert "labels of 1 to 256" in fault.reason


def test_a_number_in_json_is_a_value_of_a_list_and_of_a_quantity():
    layer = overlay_layer("x", {"github.labels": [1, "a"], "controller.timeout": 1.25})
    assert read(layer, "github.labels") == ("1", "a")
    assert read(layer, "controller.timeout") == 1.25


@pytest.mark.parametrize("text", ["a\x00b", "a\x1b[31mb", "a\udc80b", "a\nb"])
def test_what_cannot_be_printed_is_refused_and_not_printed(text):
    fault = refusal(environment_layer({"MIGLET_GITHUB_RUNNER_GROUP": text}))
    assert "cannot be printed" in fault.reason
    assert str(fault).isprintable()


SECRETS = [
    ("controller.endpoint", "https://me:hunter2@controller.example"),
    ("controller.proxy", "ftp://me:hunter2@proxy.example"),
    ("runner.proxy", "http://me:hunter2@proxy.example"),
    ("controller.proxy", "hunter2"),
    ("controller.proxy", "http://me:hunter2@proxy:99999"),
    ("controller.auth.token_path", "hunter2"),
    ("controller.auth.key_path", "-----BEGIN hunter2"),
]


@every_source
def test_no_fault_repeats_a_secret(source):
    def is_refused_in_silence(case):
        key, text = case
        with pytest.raises(Misconfigured) as caught:
            read(source(key, text), key)
        assert "hunter2" not in str(caught.value)

    check_each(SECRETS, is_refused_in_silence)


def test_the_sources_of_a_start_are_read_together(tmp_path):
    file = tmp_path / "miglet.yaml"
    file.write_text("pool_id: pool-1\norg_id: org-1\n")
    environ = {"MIGLET_CONTROLLER_ENDPOINT": "http://127.0.0.1:1", "PATH": "/bin"}
    layers = layers_of(environ, ["vm_id=vm-1"], str(file))
    assert load(layers).settings.vm_id == "vm-1"
    assert load(layers).origins["org_id"].source == f"{file}:2"


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("github.labels", ["linux", "a,b"]),
        ("github.labels", ["linux", ""]),
        ("github.labels", ["linux", "a\0b"]),
        ("github.labels", ["--ephemeral"]),
        ("github.runner_group", "-x"),
        ("github.runner_group", "a\nb"),
        ("github.runner_group", ""),
        ("github.org", "octo/widget"),
        ("vm_id", "a b"),
    ],
)
def test_what_config_sh_would_misread_is_refused_by_name(key, written):
    base = {**NEEDED, key: written}
    with pytest.raises(Misconfigured) as caught:
        load(Layers(file=overlay_layer("file", base)))
    assert [fault.key for fault in caught.value.faults] == [key]
    assert caught.value.exit_status == 78


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_survives_being_written(milliseconds):
    seconds = milliseconds / 1000
    assert parse_duration(duration_text(seconds)) == seconds


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_of_microseconds_survives_being_written(microseconds):
    seconds = microseconds / 1_000_000
    assert parse_duration(duration_text(seconds)) == seconds


@given(st.integers(min_value=0, max_value=10**15))
def test_a_size_survives_being_written(size):
    assert parse_size(size_text(size)) == size


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_value_error(text):
    for parser in (parse_duration, parse_size):
        try:
            assert parser(text) >= 0
        except ValueError:
            continue


def test_the_usual_quantities_are_written_as_people_write_them():
    durations = (0, 0.05, 15, 90, 5400)
    assert [*map(duration_text, durations)] == ["0s", "50ms", "15s", "1m30s", "1h30m"]
    sizes = (0, 1023, 100_000, 5 * 10**9, 512 * 1024**2)
    assert [*map(size_text, sizes)] == ["0B", "1023B", "100kB", "5GB", "512MiB"]
