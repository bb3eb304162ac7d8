"""Metadata through a child: what is ours comes through, and as whom it is read."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from miglet.metadata import fetch
from miglet.metadata.attempts import Limits, MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.fetch import OURS_AT_MOST, fetched
from miglet.supervisor import privileges

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")

FULL = Metadata(
    cloud="gce",
    vm_id="4711",
    zone="europe-west1-b",
    attributes={"miglet-pool-id": "pool-1", "MIGLET_ORG_ID": "ö", "ssh-keys": "secret"},
    user_data=b"#miglet-config\npool_id: pool-2\n",
)


class FakeCloud:
    def __init__(self, look: Callable[[], Metadata]) -> None:
        self._look = look

    def metadata(self, deadline: float) -> Metadata:
        return self._look()

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def cloud(monkeypatch) -> Callable[[Callable[[], Metadata]], Any]:
    """Reads the metadata of a cloud that does this when it is asked."""

    def read(look: Callable[[], Metadata], seconds: float = 10.0) -> Any:
        monkeypatch.setattr(fetch, "open_cloud", lambda *_: FakeCloud(look))
        return fetched("gce", {}, Limits(overall_seconds=seconds))

    return read


def test_what_is_ours_comes_through_and_nothing_else(cloud):
    found, trouble = cloud(lambda: FULL)
    assert trouble is None
    assert (found.vm_id, found.zone, found.image) == ("4711", "europe-west1-b", None)
    assert found.attributes == {"miglet-pool-id": "pool-1", "miglet-org-id": "ö"}
    assert found.user_data == FULL.user_data


def test_user_data_of_somebody_else_stays_where_it_is(cloud):
    found, _ = cloud(lambda: Metadata("aws", user_data=b"#!/bin/sh\nreboot\n"))
    assert found.user_data is None


def test_a_long_document_comes_in_parts(cloud):
    long = {"miglet-config": "x" * 200_000}
    found, trouble = cloud(lambda: Metadata("gce", attributes=long))
    assert trouble is None and found.attributes == long


def test_what_is_too_large_to_be_settings_is_trouble(cloud):
    huge = {"miglet-config": "x" * OURS_AT_MOST}
    found, trouble = cloud(lambda: Metadata("gce", attributes=huge))
    assert found is None and "more than settings have" in str(trouble)


def test_trouble_comes_with_its_hint(cloud):
    def refuse() -> Metadata:
        raise MetadataUnavailable("503 Service Unavailable")

    found, trouble = cloud(refuse)
    assert found is None and str(trouble) == "503 Service Unavailable"
    assert trouble.hint == MetadataUnavailable.hint


def test_a_child_that_dies_is_trouble(cloud):
    found, trouble = cloud(lambda: os._exit(3))
    assert found is None and "died or hung" in str(trouble)


def test_a_child_that_hangs_is_trouble(cloud, monkeypatch):
    monkeypatch.setattr(fetch, "MARGIN_SECONDS", 0.0)
    found, trouble = cloud(signal.pause, seconds=0.3)
    assert found is None and "died or hung" in str(trouble)


@needs_root
def test_the_process_that_speaks_to_the_server_is_not_root(cloud, monkeypatch):
    nobody = privileges.account("nobody")
    monkeypatch.setattr(privileges, "unprivileged_account", lambda user: nobody)
    found, _ = cloud(lambda: Metadata("gce", vm_id=str(os.getresuid())))
    assert found.vm_id == str((nobody.uid,) * 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        '"text"',
        "[]",
        "{}",
        '{"cloud": "gce", "user_data": ""}',
        '{"cloud": "gce", "user_data": "", "attributes": []}',
        '{"cloud": "gce", "user_data": "", "attributes": {"a": 1}}',
        '{"cloud": "gce", "user_data": 1, "attributes": {}}',
        '{"cloud": ["gce"], "user_data": "", "attributes": {}}',
        '{"cloud": "gce", "user_data": "", "attributes": {}, "more": ""}',
        '{"cloud": "\\ud800", "user_data": "", "attributes": {}}',
        "[" * 10_000,
        "\ud800",
    ],
)
def test_what_a_child_should_not_have_sent_is_no_metadata(text):
    with pytest.raises(MetadataUnavailable, match="not the metadata of a machine"):
        fetch.deserialize(text)


def test_metadata_that_was_serialized_is_deserialized():
    assert fetch.deserialize(fetch.serialize(FULL)) == FULL
