"""Metadata through a child: what is ours comes through, and as whom it is read."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from miglet.config import sources
from miglet.config.load import MOST_FAULTS
from miglet.config.sources import DEEPEST, Entry, Table, Value
from miglet.metadata import fetch
from miglet.metadata.attempts import Limits, MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.fetch import (
    MetadataMistaken,
    MetadataRead,
    MetadataSet,
    fetched,
)
from miglet.metadata.settings import OURS_AT_MOST
from miglet.redaction import forget_secrets, redact
from miglet.supervisor import privileges

pytestmark = pytest.mark.integration

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")

FULL = Metadata(
    cloud="gce",
    vm_id="4711",
    zone="europe-west1-b",
    attributes={"miglet-pool-id": "pool-1", "MIGLET_ORG_ID": "ö", "ssh-keys": "secret"},
    user_data=b"#miglet-config\npool_id: pool-2\nlogging.level: debug\n",
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


def test_what_is_ours_comes_through_parsed_and_nothing_else(cloud):
    found, error = cloud(lambda: FULL)
    assert error is None
    assert found.machine == Metadata("gce", "4711", "europe-west1-b")
    assert dict(found.layer.values) == {
        "pool_id": Value("pool-1", "metadata miglet-pool-id"),
        "org_id": Value("ö", "metadata miglet-org-id"),
        "logging.level": Value("debug", "metadata user data:3"),
    }
    assert found.layer.faults == ()
    assert (found.token, found.secrets) == (None, ())


def test_a_token_comes_through_and_is_a_secret_here(cloud):
    attributes = {"miglet-controller-token": " hunter2-hunter2\n"}
    found, _ = cloud(lambda: Metadata("gce", attributes=attributes))
    assert found.token == "hunter2-hunter2"
    assert found.secrets == ("miglet-controller-token",)
    assert "hunter2" not in redact("it is hunter2-hunter2") + repr(found)
    forget_secrets()


@pytest.mark.parametrize("content", [b"#!/bin/sh\nreboot\n", b"#cloud-config\na: 1\n"])
def test_user_data_of_somebody_else_stays_where_it_is(cloud, content):
    found, _ = cloud(lambda: Metadata("aws", user_data=content))
    assert (dict(found.layer.values), found.layer.faults) == ({}, ())


def test_what_is_no_text_arrives_as_plain_lists_and_objects(cloud):
    document = {"miglet-config": "labels: {a: [b, null]}\nvm_id: [x, {y: z}]"}
    found, _ = cloud(lambda: Metadata("gce", attributes=document))
    (mistake,) = found.layer.faults
    assert mistake.key == "labels" and "not a known setting" in mistake.reason
    assert found.layer.values["vm_id"].raw == ["x", {"y": "z"}]


def test_a_value_that_no_setting_can_have_is_a_fault(cloud):
    document = {"miglet-config": f"pool_id: p\nvm_id: {'x' * 200_000}"}
    found, error = cloud(lambda: Metadata("gce", attributes=document))
    assert error is None and set(found.layer.values) == {"pool_id"}
    (mistake,) = found.layer.faults
    assert mistake[:2] == ("vm_id", "metadata miglet-config:2")
    assert mistake.reason.startswith("expected 1 to 128 printable ASCII characters")
    assert mistake.reason.endswith("found more than 64 KiB")


def test_the_longest_labels_that_may_be_come_through(cloud):
    labels = ",".join(f"{number:0256}" for number in range(100))
    found, _ = cloud(
        lambda: Metadata("gce", attributes={"miglet-github-labels": labels})
    )
    assert found.layer.values["github.labels"].raw == labels


def test_of_many_mistakes_the_first_are_listed_and_the_rest_counted(cloud):
    document = "".join(f"wrong{number}: x\n" for number in range(5000))
    attributes = {"miglet-config": document}
    found, error = cloud(lambda: Metadata("gce", attributes=attributes))
    assert error is None and len(found.layer.faults) == MOST_FAULTS + 1
    assert "4900 more mistakes" in found.layer.faults[-1].reason


def test_what_is_too_large_to_be_settings_is_an_error(cloud):
    huge = {"miglet-config": "x" * (OURS_AT_MOST + 1)}
    found, error = cloud(lambda: Metadata("gce", attributes=huge))
    assert found is None and "more than settings have" in str(error)


@pytest.mark.parametrize("depth", [DEEPEST + 1, 100_000])
def test_yaml_that_is_nested_too_deep_is_a_fault(cloud, depth):
    attributes = {"miglet-config": f"vm_id: {'[' * depth}"}
    found, _ = cloud(lambda: Metadata("gce", attributes=attributes))
    (mistake,) = found.layer.faults
    assert "nested more than" in mistake.reason


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else "x"


NAMES = dict.fromkeys(
    ("vm_id", "zone", "machine_type", "image", "instance_name", "hostname")
)

#: What a child that was taken over sends in the place of settings.
FORGERIES = {
    "a setting that is none": [MetadataSet("runner.root", "x", "metadata a")],
    "a source of somebody else": [MetadataSet("vm_id", "x", "command line --set")],
    "a mistake of somebody else": [MetadataMistaken("vm_id", "/etc/x", "no", "")],
    "a value that is too deep": [MetadataSet("vm_id", deep(DEEPEST + 1), "metadata")],
    "a value that is too long": [MetadataSet("vm_id", "x" * 70_000, "metadata")],
    "a reason that is too long": [MetadataMistaken("", "metadata", "x" * 5000, "")],
    "more mistakes than anybody reads": [
        MetadataMistaken("vm_id", "metadata", "no", "")
    ]
    * (MOST_FAULTS + 2),
    "a token that is two words": [MetadataRead(NAMES, token="a b")],
    "a secret of its own": [MetadataRead(NAMES, secrets=["runner.user"])],
    "names that are no text": [MetadataRead({**NAMES, "vm_id": 7})],
    "other names": [MetadataRead({**NAMES, "cloud": "aws"})],
    "no names": [MetadataRead()],
}


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_a_child_that_was_taken_over_gives_no_settings(monkeypatch, forged):
    def forge(name, environ, limits, queue):
        for fact in [*forged, MetadataRead(NAMES)]:
            text = json.dumps([type(fact).__name__, vars(fact)])
            os.write(queue.fileno(), text.encode())

    monkeypatch.setattr(fetch, "_fetch", forge)
    found, error = fetched("gce", {}, Limits())
    assert found is None and error


def test_an_error_comes_with_its_hint(cloud):
    def refuse() -> Metadata:
        raise MetadataUnavailable("503 Service Unavailable")

    found, error = cloud(refuse)
    assert found is None and str(error) == "503 Service Unavailable"
    assert error.hint == MetadataUnavailable.hint


def test_a_child_that_dies_is_an_error(cloud):
    found, error = cloud(lambda: os._exit(3))
    assert found is None and "died or hung" in str(error)


def test_a_child_that_hangs_is_an_error(cloud, monkeypatch):
    monkeypatch.setattr(fetch, "MARGIN_SECONDS", 0.0)
    found, error = cloud(signal.pause, seconds=0.3)
    assert found is None and "died or hung" in str(error)


@needs_root
def test_the_process_that_speaks_to_the_server_is_not_root(cloud, monkeypatch):
    nobody = privileges.account("nobody")
    monkeypatch.setattr(privileges, "unprivileged_account", lambda user: nobody)
    found, _ = cloud(lambda: Metadata("gce", vm_id=str(os.getresuid())))
    assert found.machine.vm_id == str((nobody.uid,) * 3)


@needs_root
def test_the_process_that_parses_what_the_server_sent_is_not_root(cloud, monkeypatch):
    nobody = privileges.account("nobody")
    monkeypatch.setattr(privileges, "unprivileged_account", lambda user: nobody)

    def parse(text: str) -> Table:
        return Table([Entry("vm_id", f"{text}: {os.getresuid()}")])

    monkeypatch.setattr(sources, "table_of", parse)
    attributes = {"miglet-config": "hostile"}
    found, _ = cloud(lambda: Metadata("gce", attributes=attributes))
    assert found.layer.values["vm_id"].raw == f"hostile: {(nobody.uid,) * 3}"
