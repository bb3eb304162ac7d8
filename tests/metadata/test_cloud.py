"""The words that all clouds share."""

from __future__ import annotations

import pytest

from miglet.metadata.cloud import (
    LONGEST_FIELD_BYTES,
    LONGEST_NAME,
    field_in,
    last_part,
    text_in,
)


def test_a_field_is_bounded_and_a_folder_in_its_place_is_nothing(tmp_path):
    (tmp_path / "long").write_text("x" * 10_000)
    assert len(field_in(tmp_path / "long")) == LONGEST_FIELD_BYTES
    assert field_in(tmp_path) == ""


@pytest.mark.parametrize(
    "tree, text",
    [
        ({"id": "vm-1"}, "vm-1"),
        ({"id": 17}, "17"),
        ({"id": True}, None),
        ({"id": ""}, None),
        ({"id": {"a": "b"}}, None),
        ({}, None),
    ],
)
def test_an_identity_is_text_or_a_number(tree, text):
    assert text_in(tree, "id") == text


def test_an_identity_is_bounded_and_a_path_may_lead_nowhere():
    assert text_in({"a": {"b": "x" * 10_000}}, "a", "b") == "x" * LONGEST_NAME
    assert text_in({"a": "text"}, "a", "b") is None


def test_a_resource_is_called_by_the_last_part_of_its_path():
    assert last_part("projects/1/zones/europe-west1-b") == "europe-west1-b"
    assert last_part("e2-standard-4") == "e2-standard-4"
    assert last_part(None) is None
