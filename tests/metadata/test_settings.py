"""What of a machine's metadata is settings, and what is somebody else's."""

from __future__ import annotations

import pytest

from miglet.metadata.attempts import MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.settings import OURS_AT_MOST, our_part, settings_in, usual


def test_our_part_keeps_every_line_where_it_was():
    text = "#cloud-config\na: 1\nmiglet:\n  x: 1\n# c\n\n  y: 2\nb: 2\n  z: 3"
    expected = "\n\n       \n  x: 1\n# c\n\n  y: 2\n\n"
    assert our_part(text) == expected


def test_others_attributes_are_left_out_and_ours_spelt_in_one_way():
    attributes = {"MIGLET_Pool_ID": "pool-1", "ssh-keys": "secret", "miglet": "x"}
    assert usual(attributes) == {"miglet-pool-id": "pool-1"}


def test_what_names_the_machine_has_no_attributes_and_no_user_data():
    metadata = Metadata("gce", "4711", attributes={"a": "b"}, user_data=b"#!/bin/sh")
    assert settings_in(metadata).machine == Metadata("gce", "4711")


def test_the_size_of_ours_counts_and_not_that_of_others():
    settings_in(Metadata("gce", attributes={"other": "x" * (2 * OURS_AT_MOST)}))
    for mine in (
        {"attributes": {"miglet-config": "x" * (OURS_AT_MOST + 1)}},
        {"user_data": b"#miglet-config\n" + b"x" * OURS_AT_MOST},
    ):
        with pytest.raises(MetadataUnavailable, match="more than settings have"):
            settings_in(Metadata("gce", **mine))


@pytest.mark.parametrize("text", ["two words", " ", "caf\u00e9"])
def test_a_token_that_is_none_is_a_fault_without_a_word_of_it(text):
    found = settings_in(Metadata("gce", attributes={"miglet-controller-token": text}))
    (fault,) = found.layer.faults
    assert found.token is None and "printable ASCII word" in fault.reason
    assert not text.strip() or text not in str(fault)
