"""From metadata to settings: which of them win, what is refused, what stays secret."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from miglet.config import sources as files
from miglet.config.load import explain, fallback_settings
from miglet.errors import MISCONFIGURED, Misconfigured
from miglet.metadata import credential
from miglet.metadata.attempts import Limits
from miglet.metadata.sources import Sources, keep_token, sources_of
from miglet.redaction import redact
from tests.metadata_fakes import FAKES, Fake
from tests.metadata_fakes.serving import hang

pytestmark = pytest.mark.integration

QUICK = Limits(
    attempt_seconds=1.0,
    tries=2,
    shortest_pause_seconds=0.001,
    longest_pause_seconds=0.002,
    overall_seconds=3.0,
)

NEEDED = {
    "miglet-pool-id": "pool-1",
    "miglet-org-id": "org-1",
    "miglet-controller-endpoint": "https://controller.example",
}

SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture(autouse=True)
def this_machine_has_no_file(monkeypatch) -> None:
    """A MIGlet that is installed here has one."""
    monkeypatch.setattr(files, "DEFAULT_FILE", "/nonexistent/miglet.yaml")


def sources(
    fake: Fake,
    attributes: Mapping[str, str] = NEEDED,
    more: Mapping[str, str] | None = None,
    assignments: tuple[str, ...] = (),
    limits: Limits = QUICK,
) -> Sources:
    """What a start with these attributes and no file of its own finds."""
    fake.describe(attributes)
    environ = {**fake.environment, **(more or {})}
    return sources_of(environ, {"assignments": assignments}, limits)


def faults(found: Sources) -> list[str]:
    """The start's mistakes, one line each."""
    with pytest.raises(Misconfigured) as caught:
        found.loaded()
    assert caught.value.exit_status == MISCONFIGURED
    return [str(fault) for fault in caught.value.faults]


def test_a_machine_with_nothing_but_metadata_has_a_configuration(fake):
    found = sources(fake)
    settings = found.loaded().settings
    assert settings.pool_id == "pool-1"
    assert settings.controller.endpoint == "https://controller.example"
    assert found.metadata
    assert settings.vm_id == found.metadata.machine.vm_id


def test_its_own_name_goes_before_the_clouds(fake):
    found = sources(fake, {**NEEDED, "miglet-vm-id": "vm-9"})
    assert found.loaded().settings.vm_id == "vm-9"


def test_every_value_says_where_it_came_from(fake):
    found = sources(
        fake,
        {**NEEDED, "miglet-heartbeat-interval": "7s"},
        {"MIGLET_HEARTBEAT_INTERVAL": "9s", "MIGLET_LOGGING_LEVEL": "debug"},
        ("metrics.collection_interval=3s",),
    )
    loaded = found.loaded()
    interval = loaded.origins["heartbeat.interval"]
    assert interval.source == "metadata miglet-heartbeat-interval"
    assert interval.overrides[0] == ("environment MIGLET_HEARTBEAT_INTERVAL", "9s")
    assert loaded.origins["vm_id"].source == f"{found.cloud} instance id"
    assert loaded.settings.logging.level == "debug"
    assert loaded.settings.metrics.collection_interval == 3.0


def test_a_single_attribute_goes_before_the_document(fake):
    document = yaml.safe_dump({"pool_id": "other", "org_id": "org-2"})
    found = sources(fake, {**NEEDED, "miglet-config": document})
    settings = found.loaded().settings
    assert (settings.pool_id, settings.org_id) == ("pool-1", "org-1")


def test_a_document_alone_is_enough(fake):
    document = {
        "pool_id": "pool-1",
        "org_id": "org-1",
        "controller": {"endpoint": "https://controller.example"},
    }
    found = sources(fake, {"miglet-config": yaml.safe_dump(document)})
    assert found.loaded().settings.pool_id == "pool-1"


def test_capitals_and_underscores_are_taken_for_what_they_mean(fake):
    found = sources(fake, {**NEEDED, "Miglet_Logging_Level": "debug"})
    assert found.loaded().settings.logging.level == "debug"


# User data.

DATA = """\
pool_id: pool-1
org_id: org-1
controller:
  endpoint: https://controller.example
"""


def section_of(text: str) -> str:
    """`text` below a key of its own."""
    return "miglet:\n" + "".join(f"  {line}\n" for line in text.splitlines())


USER_DATA = {
    "a document": "#miglet-config\n" + DATA,
    "with a mark and the other line ends": "\ufeff#miglet-config \r\n"
    + DATA.replace("\n", "\r\n"),
    "a section": "#cloud-config\n" + section_of(DATA),
    "a section in the middle": "#cloud-config\npackages: [git]\n"
    + section_of(DATA)
    + "\nruncmd:\n  - &x [!!str a, *x]\nwrite_files:\n- {path: /x}\n",
    "a section on one line": "#cloud-config\nmiglet: {pool_id: pool-1, org_id: org-1,"
    " controller.endpoint: https://controller.example}\nusers: []\n",
}


def give(fake: Fake, content: bytes) -> None:
    """Set the user data in the cloud's own way."""
    if fake.environment["MIGLET_CLOUD"] == "aws":
        fake.change("user-data", content)
    else:
        fake.set_user_data(content)


@pytest.fixture(params=["aws", "azure"])
def with_user_data(request) -> Iterator[Fake]:
    with FAKES[request.param]() as made:
        yield made


@pytest.mark.parametrize("text", USER_DATA.values(), ids=USER_DATA)
def test_user_data_may_hold_the_configuration(with_user_data, text):
    give(with_user_data, text.encode())
    loaded = sources(with_user_data, {}).loaded()
    assert loaded.settings.pool_id == "pool-1"
    assert loaded.settings.controller.endpoint == "https://controller.example"
    assert loaded.origins["pool_id"].source.startswith("metadata user data:")


def test_tags_go_before_user_data(with_user_data):
    give(with_user_data, b"#miglet-config\npool_id: other\nlogging.level: debug\n")
    settings = sources(with_user_data).loaded().settings
    assert (settings.pool_id, settings.logging.level) == ("pool-1", "debug")


NOT_OURS = {
    "a script": b"#!/bin/sh\ncat > x <<E\nmiglet:\n  pool_id: x\nE\n",
    "cloud-init alone": b"#cloud-config\nruncmd: [[ls]]\n",
    "no section, its name only": b"#cloud-config\nx:\n  miglet: {pool_id: x}\n",
    "packed": b"\x1f\x8b\x08\x00\x00",
    "not text": b"#cloud-config\n\xff\xfe",
    "yaml without a first line": b"miglet:\n  nonsense: x\n",
    "nothing": b"",
}


@pytest.mark.parametrize("content", NOT_OURS.values(), ids=NOT_OURS)
def test_user_data_of_others_is_left_alone(with_user_data, content):
    give(with_user_data, content)
    assert sources(with_user_data).loaded().settings.pool_id == "pool-1"


def test_a_mistake_in_user_data_is_reported_with_its_line(with_user_data):
    text = "#cloud-config\nruncmd: []\nmiglet:\n  pol_id: x\nusers: []\n"
    give(with_user_data, text.encode())
    reported = faults(sources(with_user_data))
    assert reported == [
        "pol_id (metadata user data:4): is not a known setting; did you mean pool_id?"
    ]


def test_user_data_of_ours_that_is_no_text_is_a_fault(with_user_data):
    give(with_user_data, b"#miglet-config\n\xff\xfe")
    assert faults(sources(with_user_data)) == [
        "metadata user data: not UTF-8 at byte 16"
    ]


# Bad input.

BAD = {
    "unknown": (
        {"miglet-controler-endpoint": "x"},
        "is not a known setting; did you mean miglet-controller-endpoint?",
    ),
    "wrong type": (
        {"miglet-heartbeat-interval": "soon"},
        "heartbeat.interval (metadata miglet-heartbeat-interval): expected a duration",
    ),
    "no yaml": (
        {"miglet-config": "a: [1\nb: }"},
        "metadata miglet-config: not valid YAML at line 2",
    ),
    "a list": (
        {"miglet-config": "- a\n- b"},
        "metadata miglet-config: expected a mapping of settings, found a list",
    ),
    "text": (
        {"miglet-config": "pool-1"},
        "metadata miglet-config: expected a mapping of settings, found text",
    ),
    "too long a value": (
        {"miglet-pool-id": "x" * 200_000},
        "pool_id (metadata miglet-pool-id): expected 1 to 128 printable ASCII",
    ),
}


@pytest.mark.parametrize("attributes, words", BAD.values(), ids=BAD)
def test_bad_attributes_are_reported_in_one_short_line(fake, attributes, words):
    reported = faults(sources(fake, {**NEEDED, **attributes}))
    assert len(reported) == 1
    assert words in reported[0]
    assert len(reported[0]) < 400


def test_a_huge_document_is_read_or_refused_but_never_kills(gce):
    labels = ", ".join(f"label-{number}" for number in range(30_000))
    reported = faults(sources(gce, {**NEEDED, "miglet-github-labels": labels}))
    assert len(reported) == 1
    assert reported[0].startswith(
        "github.labels (metadata miglet-github-labels): expected"
    )
    assert reported[0].endswith("found more than 64 KiB")


def test_more_than_a_mebibyte_is_no_metadata(gce):
    found = sources(gce, {**NEEDED, "x": "y" * 1_200_000})
    assert found.error
    assert "longer than 1048576 bytes" in str(found.error)


@pytest.mark.parametrize(
    "attributes",
    [
        {"miglet-controller-token": SECRET, "miglet-pool-id": f"{SECRET} x"},
        {"miglet-controller-token": SECRET, "miglet-config": f"{SECRET}: [x"},
        {"miglet-controller-token": SECRET, "miglet-config": f"a: *{SECRET}"},
        {"miglet-controller-token": SECRET, "miglet-config": f"{SECRET}: x"},
        {"miglet-controller-token": f"{SECRET} {SECRET}"},
        {"miglet-controller-auth-token-path": SECRET},
        {"miglet-controller-proxy": f"http://user:{SECRET}@"},
        {"miglet-registration-token": SECRET, "miglet-org-id": f"{SECRET} "},
        {"miglet-org-id": "ghp_abcdefghijklmnopqrstuvwxyz012345 x"},
    ],
)
def test_no_message_repeats_a_secret(fake, attributes, caplog):
    found = sources(fake, attributes)
    reported = "\n".join(faults(found)) + caplog.text + repr(found)
    assert SECRET not in reported
    assert "ghp_" not in reported


def test_what_a_reload_judges_has_no_secret_in_its_faults_either(fake):
    attributes = {"miglet-controller-token": SECRET, "miglet-config": f"a: *{SECRET}"}
    reported = sources(fake, attributes).layers.metadata.faults
    assert len(reported) == 1
    assert "an alias (****)" in str(reported[0])


def test_a_token_is_masked_from_the_moment_it_is_known(fake):
    sources(fake, {"miglet-controller-token": SECRET})
    assert redact(f"a peer says {SECRET}") == "a peer says ***"


def test_an_unknown_cloud_is_a_mistake_like_any_other():
    found = sources_of({"MIGLET_CLOUD": "gcp"}, {})
    assert faults(found) == [
        "environment MIGLET_CLOUD: expected one of gce, aws, azure, none; found 'gcp'"
    ]


# Without metadata.


def test_a_machine_without_a_cloud_asks_nobody(tmp_path):
    found = sources_of({"MIGLET_DMI_ROOT": str(tmp_path)}, {})
    assert (found.cloud, found.metadata, found.note()) == (None, None, None)
    assert found.checks() == []
    assert found.identity()["cloud"] is None


def test_without_metadata_the_other_sources_serve(fake):
    fake.fail(503)
    enough = {
        "MIGLET_POOL_ID": "pool-1",
        "MIGLET_ORG_ID": "org-1",
        "MIGLET_VM_ID": "vm-1",
        "MIGLET_CONTROLLER_ENDPOINT": "https://controller.example",
    }
    found = sources(fake, NEEDED, enough)
    assert found.loaded().settings.pool_id == "pool-1"
    note = found.note()
    assert note
    assert (note.code, note.category) == ("metadata_unavailable", "infrastructure")
    assert note.message.startswith(f"started without metadata of {found.cloud}: ")
    assert "503 Service Unavailable" in note.message
    assert found.checks()[0]["status"] == "warn"


def test_what_is_missing_says_that_there_was_no_metadata(fake):
    fake.fail(hang)
    limits = Limits(attempt_seconds=0.2, tries=1, overall_seconds=0.3)
    reported = faults(sources(fake, NEEDED, limits=limits))
    assert len(reported) == 4
    assert all("(metadata was unavailable: 127.0.0.1:" in each for each in reported)
    assert all("no complete answer within" in each for each in reported)


def test_other_mistakes_say_nothing_of_the_metadata(fake):
    fake.fail(503)
    reported = faults(sources(fake, NEEDED, {"MIGLET_LOGGING_LEVEL": "shrill"}))
    loud = [each for each in reported if "shrill" in each]
    assert len(loud) == 1
    assert "unavailable" not in loud[0]


def test_a_reload_insists_on_the_metadata(fake):
    assert sources(fake).whole().metadata.values
    fake.fail(503)
    with pytest.raises(Misconfigured, match="so nothing is changed: 127.0.0.1:"):
        sources(fake).whole()


def test_the_machine_and_the_check_say_what_is_known(fake):
    found = sources(fake)
    identity = found.identity()
    assert identity["cloud"] == fake.environment["MIGLET_CLOUD"]
    assert all(text for name, text in identity.items() if name != "instance_name")
    assert identity["hostname"] == (
        found.metadata.machine.hostname or socket.gethostname()
    )
    check = found.checks()[0]
    assert (check["id"], check["status"]) == ("metadata", "ok")
    assert found.metadata
    assert str(found.metadata.machine.vm_id) in check["detail"]
    assert check["milliseconds"] > 0


# The controller's token.


def with_token(fake: Fake, runtime: Path, **more: str) -> Sources:
    attributes = {**NEEDED, "miglet-controller-token": f" {SECRET}\n"}
    environ = {"MIGLET_PATHS_RUNTIME": str(runtime)}
    return sources(fake, {**attributes, **more}, environ)


def test_the_token_becomes_a_file_that_only_we_can_read(fake, tmp_path, monkeypatch):
    # Where MIGlet is installed, its workers have users of their own.
    monkeypatch.setattr(credential, "unprivileged_account", lambda user: None)
    runtime = tmp_path / "run"
    found = with_token(fake, runtime)
    settings = found.loaded().settings
    keep_token(found, settings)
    path = runtime / "controller-token"
    assert settings.controller.auth.token_path == str(path)
    assert path.read_text() == SECRET + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(runtime) == ["controller-token"]


def test_the_token_is_in_no_setting_and_no_table(fake, tmp_path):
    found = with_token(fake, tmp_path)
    loaded = found.loaded()
    table = explain(loaded)
    assert SECRET not in table
    assert SECRET not in str(loaded.settings.as_dict())
    assert "metadata miglet-controller-token" in table
    assert SECRET not in os.environ.values()


def test_a_token_file_that_somebody_named_is_used_instead(gce, tmp_path):
    named = {"miglet-controller-auth-token-path": "/run/credentials/token"}
    found = with_token(gce, tmp_path, **named)
    settings = found.loaded().settings
    keep_token(found, settings)
    assert settings.controller.auth.token_path == "/run/credentials/token"
    assert os.listdir(tmp_path) == []


def test_without_bearer_no_token_is_kept(gce, tmp_path):
    found = with_token(gce, tmp_path, **{"miglet-controller-auth-type": "none"})
    keep_token(found, found.loaded().settings)
    assert os.listdir(tmp_path) == []


def test_a_new_token_replaces_the_old_file_and_follows_no_link(gce, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    runtime = tmp_path / "run"
    runtime.mkdir()
    (runtime / "controller-token").symlink_to(victim)
    found = with_token(gce, runtime)
    keep_token(found, found.loaded().settings)
    assert victim.read_text() == "precious"
    assert (runtime / "controller-token").read_text() == SECRET + "\n"


def test_a_token_that_cannot_be_kept_is_a_mistake_without_the_token(gce, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = with_token(gce, blocked / "run")
    with pytest.raises(Misconfigured) as caught:
        keep_token(found, found.loaded().settings)
    reported = str(caught.value)
    assert "controller.auth.token_path (metadata miglet-controller-token)" in reported
    assert "cannot be kept in" in reported
    assert SECRET not in reported


@pytest.mark.parametrize("token", ["", "  ", "two words", "ümläut", "x" * 10_000])
def test_a_token_that_is_none_is_a_mistake_without_a_word_of_it(gce, token):
    reported = faults(sources(gce, {**NEEDED, "miglet-controller-token": token}))
    assert len(reported) == 1
    assert "expected one printable ASCII word of at most 8192 characters" in reported[0]
    assert len(token.strip()) == 0 or token.strip() not in reported[0]


def test_a_broken_configuration_still_has_the_token_to_tell_of_it(gce, tmp_path):
    found = with_token(gce, tmp_path, **{"miglet-logging-level": "loud"})
    assert len(faults(found)) == 1
    rest = fallback_settings(found.layers)
    assert rest
    keep_token(found, rest)
    assert (tmp_path / "controller-token").exists()


BLOCK = "runner.block_metadata"


def blocked(found: Sources) -> object:
    return found.loaded().settings.runner.block_metadata


@pytest.fixture
def token_file(tmp_path) -> dict[str, str]:
    """A machine whose token came with the image, by a file."""
    path = tmp_path / "token"
    path.write_text("token\n")
    return {"MIGLET_CONTROLLER_AUTH_TOKEN_PATH": str(path)}


def test_jobs_are_kept_from_metadata_that_holds_the_controllers_token(fake):
    found = sources(fake, {**NEEDED, "miglet-controller-token": SECRET})
    assert blocked(found) is True
    origin = found.loaded().origins[BLOCK]
    assert origin.source == "metadata holds a secret, miglet-controller-token"


@pytest.mark.parametrize(
    "secret",
    [
        {"miglet-controller-token": SECRET},
        {"miglet-registration-token": SECRET},
        {"miglet-controller-proxy": f"http://me:{SECRET}@proxy.example:3128"},
        {
            "miglet-github-token-source": "metadata",
            "miglet-github-metadata-path": "elsewhere/token",
            "miglet-github-org": "octo",
        },
    ],
)
def test_any_secret_in_metadata_counts_whether_it_is_used_or_not(
    fake, token_file, secret
):
    assert blocked(sources(fake, NEEDED, token_file)) == "auto"
    assert blocked(sources(fake, {**NEEDED, **secret}, token_file)) is True


def test_a_token_that_may_still_come_by_metadata_counts(fake):
    assert blocked(sources(fake)) is True


def test_where_the_controller_wants_no_token_none_is_awaited(fake):
    more = {"MIGLET_CONTROLLER_AUTH_TYPE": "none"}
    assert blocked(sources(fake, NEEDED, more)) == "auto"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("false", False), ("true", True), ("auto", True), ("AUTO", True)],
)
def test_what_is_said_explicitly_goes_before(fake, written, wanted):
    secret = {"miglet-controller-token": SECRET}
    found = sources(fake, {**NEEDED, **secret}, {}, (f"{BLOCK}={written}",))
    assert blocked(found) is wanted
