"""The example file and the reference page say what the schema says."""

from __future__ import annotations

import re

import pytest

from miglet.config import docs
from miglet.config.load import load
from miglet.config.schema import KEYS, parse
from miglet.config.sources import Layers, document_layer, overlay_layer
from miglet.errors import Misconfigured
from tests.paths import ROOT

EXAMPLE = ROOT / "etc" / "miglet.yaml"
PAGE = ROOT / "docs" / "configuration.rst"

SETTING = re.compile(r"^( *)#(?=[a-z_]+: )", re.MULTILINE)
REQUIRED = ("pool_id", "org_id", "endpoint")


def uncommented(names: str) -> str:
    """The example with the settings whose names match uncommented."""
    setting = re.compile(rf"^( *)#(?=({names}): )", re.MULTILINE)
    return setting.sub(r"\1", EXAMPLE.read_text())


def layer_of(text: str):
    return document_layer(str(EXAMPLE), text)


def test_the_example_is_what_the_schema_makes_of_it():
    assert EXAMPLE.read_text() == docs.example_page(), (
        "python -m miglet.config.docs example etc/miglet.yaml"
    )


def test_the_page_is_what_the_schema_makes_of_it():
    assert PAGE.read_text() == docs.reference_page(), (
        "python -m miglet.config.docs reference docs/configuration.rst"
    )


@pytest.mark.parametrize("page", docs.PAGES)
def test_a_page_is_printed_or_written(page, tmp_path, capsys):
    docs.main([page])
    printed = capsys.readouterr().out
    docs.main([page, str(tmp_path / "page")])
    assert (tmp_path / "page").read_text() == printed == docs.PAGES[page]()


@pytest.mark.parametrize("words", [[], ["--help"], ["example", "one", "two"]])
def test_other_words_are_answered_with_the_usage(words):
    with pytest.raises(SystemExit, match=r"example\|reference\|settings \[FILE\]"):
        docs.main(words)


def test_a_mistake_in_the_schema_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    def mistaken() -> str:
        raise KeyError("description")

    page = tmp_path / "page"
    page.write_text("as it was")
    monkeypatch.setitem(docs.PAGES, "settings", mistaken)
    with pytest.raises(KeyError):
        docs.main(["settings", str(page)])
    assert page.read_text() == "as it was"


def test_the_example_names_every_setting_with_its_default():
    layer = layer_of(uncommented("[a-z_]+"))
    assert layer.faults == ()
    assert list(layer.values) == list(KEYS)
    for name, value in layer.values.items():
        key = KEYS[name]
        wanted = key.rules["examples"][0] if key.required else key.rules["default"]
        assert parse(key, value.raw) == wanted, name


def test_the_example_has_a_comment_above_every_setting():
    lines = EXAMPLE.read_text().splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        if re.match(r" *#[a-z]", line):
            assert re.match(r" *# \S", above), line
    assert max(map(len, lines)) <= 88


def test_the_example_as_shipped_starts_nothing():
    layer = layer_of(EXAMPLE.read_text())
    assert (layer.values, layer.faults) == ({}, ())
    with pytest.raises(Misconfigured) as caught:
        load(Layers(file=layer))
    assert {fault.key for fault in caught.value.faults} == {
        "pool_id",
        "vm_id",
        "org_id",
        "controller.endpoint",
    }


def test_three_uncommented_lines_are_enough_where_the_machine_has_a_name():
    text = uncommented("|".join(REQUIRED))
    changed = set(text.splitlines()) - set(EXAMPLE.read_text().splitlines())
    assert len(changed) == 3
    machine = overlay_layer("instance id", {"vm_id": "i-1"})
    settings = load(Layers(file=layer_of(text), machine=machine)).settings
    assert settings.controller.endpoint == "https://controller.example"


def test_the_page_has_a_row_for_every_setting_and_every_word_it_may_be():
    page = docs.reference_page()
    for key in KEYS.values():
        assert f"   * - ``{key.name}``\n" in page
        assert key.rules["description"] in page
        assert all(
            f"``{str(word).lower()}``" in page for word in key.rules.get("enum", ())
        )
