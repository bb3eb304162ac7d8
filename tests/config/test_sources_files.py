"""Configuration files and YAML texts: read within limits, or refused with a reason."""

from __future__ import annotations

import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from miglet.config import sources as reading
from miglet.config.load import fallback_settings, load, reload, update
from miglet.config.sources import (
    LARGEST_BYTES,
    Layers,
    default_file_layer,
    document_layer,
    file_layer,
    layers_of,
    overlay_layer,
    table_of,
)
from miglet.errors import Misconfigured
from tests.support import Stopwatch

NEEDED = """\
pool_id: pool-1
vm_id: vm-1
org_id: org-1
controller:
  endpoint: https://controller.example
"""


def faults(layer):
    """Every fault of `layer` over a file that is otherwise complete."""
    with pytest.raises(Misconfigured) as caught:
        load(Layers(metadata=layer, file=document_layer("file", NEEDED)))
    return caught.value.faults


def only_fault(layer):
    (fault,) = faults(layer)
    return fault


@pytest.fixture(params=["libyaml", "pure Python"])
def parser(request, monkeypatch):
    """Both of PyYAML's parsers: which one there is depends on how it was built."""
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    chosen = fast if request.param == "libyaml" else yaml.SafeLoader
    monkeypatch.setattr(reading, "Loader", chosen)


BROKEN = [
    ("a: [1, 2", "not valid YAML at line"),
    ("pool_id: 'x", "not valid YAML at line 1"),
    ("pool_id: x\n\torg_id: y", "not valid YAML at line 2, column 1"),
    ("pool_id: a: b", "not valid YAML at line 1"),
    ("pool_id: \x01", "not valid YAML"),
    ('pool_id: "\\UFFFFFFFF"', "not valid YAML"),
    ("%YAML 9" + "9" * 5000 + ".1\n---\na: b", "not valid YAML"),
    ("pool_id: \ud800", "not valid YAML"),
    ("just text", "expected a mapping of settings, found text"),
    ("- pool_id", "expected a mapping of settings, found a list"),
    ("pool_id: a\n---\npool_id: b", "more than one YAML document"),
    ("pool_id: &a x\nvm_id: *a", "an alias (*a) at line 2, column 8"),
    ("pool_id: !!python/object:os.system x", "a tag (tag:yaml.org,2002:python"),
    ("? [a]\n: b", "a key that is not text at line 1"),
    ("? {a: b}\n: b", "a key that is not text at line 1"),
    ("a: " + "[" * 17 + "]" * 17, "nested more than 16 deep at line 1"),
    ("a: " + "[" * 100_000, "nested more than 16 deep at line 1"),
    ("a: " + "{a: " * 100_000, "nested more than 16 deep at line 1"),
]


@pytest.mark.parametrize(("text", "reason"), BROKEN, ids=[b[1] for b in BROKEN])
def test_a_text_that_is_no_plain_mapping_is_one_fault(text, reason, parser):
    fault = only_fault(document_layer("the document", text))
    assert (fault.key, fault.source) == ("", "the document")
    assert reason in fault.reason
    assert "\n" not in fault.reason


def test_a_billion_laughs_are_refused_at_once(parser):
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    watch = Stopwatch()
    assert "an alias (*a0)" in only_fault(document_layer("x", "\n".join(lines))).reason
    assert watch.seconds() < 1


@pytest.mark.parametrize("text", ["", "---", "# nothing\n", "null", "~", "---\n...\n"])
def test_an_empty_document_is_an_empty_layer(text, parser):
    layer = document_layer("x", text)
    assert (layer.values, layer.faults) == ({}, ())


def test_scalars_stay_text_and_plain_nulls_are_none(parser):
    table = table_of("a: off\nb: 0123\nc: 1e3\nd: 2024-01-01\ne: ~\nf:\ng: 'null'\n")
    assert [entry.node for entry in table.entries] == [
        "off",
        "0123",
        "1e3",
        "2024-01-01",
        None,
        None,
        "null",
    ]
    assert [entry.line for entry in table.entries] == [1, 2, 3, 4, 5, 6, 7]


def test_a_key_that_is_there_twice_names_both_lines(parser):
    text = "heartbeat:\n  interval: 1s\nheartbeat.interval: 2s\n"
    fault = only_fault(document_layer("x.yaml", text))
    assert fault.key == "heartbeat.interval"
    assert fault.source == "x.yaml:3"
    assert fault.reason == "is there twice; the first is x.yaml:2"


def test_a_section_that_is_there_twice_is_a_fault(parser):
    text = "metrics: {include_disk: false}\nmetrics: {include_network: false}\n"
    assert only_fault(document_layer("x", text)).key == "metrics"


def test_nested_and_dotted_keys_mix():
    text = "controller.retry: {max_attempts: 7}\ncontroller:\n  retry.max_backoff: 9s\n"
    layers = Layers(metadata=document_layer("x", text), file=complete())
    retry = load(layers).settings.controller.retry
    assert (retry.max_attempts, retry.max_backoff) == (7, 9.0)


def complete():
    return document_layer("file", NEEDED)


def test_a_section_without_anything_below_it_is_empty():
    layers = Layers(metadata=document_layer("x", "controller:\n"), file=complete())
    assert load(layers).settings.controller.timeout == 30.0


@pytest.mark.parametrize("text", ["heartbeat: 15s", "heartbeat: [a]"])
def test_a_section_that_is_a_value_is_a_fault(text):
    fault = only_fault(document_layer("x", text))
    assert fault.key == "heartbeat"
    assert fault.reason == "is a section; expected a mapping of settings below it"


def test_a_value_that_is_a_mapping_is_a_fault():
    fault = only_fault(document_layer("x", "heartbeat: {interval: {seconds: 5}}"))
    assert "found a mapping" in fault.reason


def test_the_file_in_the_usual_place_may_be_missing(tmp_path):
    layer = default_file_layer(str(tmp_path / "none"))
    assert (layer.values, layer.faults) == ({}, ())


@pytest.mark.parametrize("by_option", [True, False])
def test_a_file_that_was_named_must_be_there(tmp_path, by_option):
    path = str(tmp_path / "none")
    environ = {} if by_option else {"MIGLET_CONFIG": path}
    layers = layers_of(environ, [], path if by_option else None)
    with pytest.raises(Misconfigured) as caught:
        load(layers)
    (fault,) = caught.value.faults
    assert fault.source == path
    assert fault.reason == "cannot be read: No such file or directory"


def test_the_option_names_the_file_before_the_environment_does(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("pool_id: a")
    layers = layers_of({"MIGLET_CONFIG": str(tmp_path / "b")}, [], str(file))
    assert layers.file.values["pool_id"].raw == "a"


def test_a_folder_or_a_pipe_in_place_of_the_file_is_refused_without_waiting(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    watch = Stopwatch()
    assert "not a regular file" in only_fault(file_layer(str(pipe))).reason
    assert "directory" in only_fault(file_layer(str(tmp_path))).reason
    assert watch.seconds() < 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    file = tmp_path / "miglet.yaml"
    file.write_text(NEEDED)
    file.chmod(0)
    assert "Permission denied" in only_fault(file_layer(str(file))).reason


def test_a_dangling_link_in_the_usual_place_is_a_fault(tmp_path):
    link = tmp_path / "miglet.yaml"
    link.symlink_to(tmp_path / "gone")
    assert "cannot be read" in only_fault(default_file_layer(str(link))).reason


def test_a_name_that_no_file_can_have_is_a_fault():
    assert only_fault(file_layer("a\0b")).reason


def test_a_huge_file_is_refused(tmp_path):
    file = tmp_path / "miglet.yaml"
    file.write_bytes(b"#" * (LARGEST_BYTES + 1))
    assert only_fault(file_layer(str(file))).reason == "larger than 1024 KiB"
    file.write_bytes(b"#" * LARGEST_BYTES)
    assert file_layer(str(file)).faults == ()


def test_a_file_that_is_not_utf_8_names_the_byte(tmp_path):
    file = tmp_path / "miglet.yaml"
    file.write_bytes(b"pool_id: \xff")
    assert only_fault(file_layer(str(file))).reason == "not UTF-8 at byte 10"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    file = tmp_path / "miglet.yaml"
    file.write_bytes(b"\xef\xbb\xbfpool_id: a\r\n")
    assert file_layer(str(file)).values["pool_id"].raw == "a"


def test_many_unknown_keys_cost_little_and_are_counted():
    text = "".join(f"heartbeat.intervall{n}: 1\n" for n in range(20_000))
    watch = Stopwatch()
    found = faults(document_layer("x", text))
    assert len(found) == 101
    assert found[-1].reason == "19900 more mistakes are not listed"
    assert watch.seconds() < 10


def test_a_long_unknown_key_is_cut_and_kept_on_one_line():
    fault = only_fault(document_layer("x", f'"{"k" * 900}": 1'))
    assert len(str(fault)) < 200
    fault = only_fault(document_layer("x", '"a\\nb": 1'))
    assert str(fault).isprintable()


WORDS = st.sampled_from(
    ["controller", "heartbeat", "interval", "retry", "features", "labels", "null", "1s"]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), WORDS
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(WORDS, st.text()), inner, max_size=4),
    ),
    max_leaves=12,
)


def survive(action):
    """Run `action`: nothing but Misconfigured may come out of it."""
    try:
        action()
    except Misconfigured as error:
        assert error.faults
        assert str(error)


@given(st.one_of(st.text(), st.text(alphabet="{}[]:,-&*!|>'\"%@#? \n\tab1~<")))
def test_any_text_is_settings_or_misconfigured(text):
    layer = document_layer("x", text)
    survive(lambda: load(Layers(metadata=layer, file=complete())))
    survive(lambda: fallback_settings(Layers(metadata=layer, file=complete())))


@given(st.dictionaries(st.one_of(WORDS, st.text()), TREES))
def test_any_document_is_settings_or_misconfigured(tree):
    layer = document_layer("x", yaml.safe_dump(tree))
    survive(lambda: load(Layers(metadata=layer, file=complete())))


@given(TREES)
def test_any_overlay_is_settings_or_misconfigured(tree):
    current = load(Layers(file=complete()))
    survive(lambda: update(current, tree))
    survive(lambda: reload(current, Layers(file=overlay_layer("x", tree))))


@given(st.binary())
def test_any_bytes_are_settings_or_misconfigured(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    survive(lambda: load(Layers(metadata=file_layer(str(file)), file=complete())))
