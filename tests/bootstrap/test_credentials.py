"""The check of the credential: real files, certificates and keys, and their faults."""

from __future__ import annotations

import os

import pytest

from miglet.bootstrap import credentials
from miglet.bootstrap.credentials import usable
from miglet.bootstrap.framework import CheckWarning
from miglet.supervisor.privileges import account
from tests.agent_process import let_pass
from tests.authority import Authority
from tests.preflight_machine import look, settings_of


@pytest.fixture(autouse=True)
def the_workers_stay_who_they_are(monkeypatch) -> None:
    """A machine where MIGlet is installed has a user for them."""
    monkeypatch.setattr(credentials, "unprivileged_account", lambda user: None)


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (None, 0o600, "No such file"),
        ("", 0o600, "empty"),
        ("token", 0o644, "everybody can read"),
    ],
)
def test_a_token_that_is_of_no_use_or_for_all_is_reported(
    tmp_path, content, mode, expected
):
    settings = settings_of(tmp_path)
    path = tmp_path / "token"
    path.unlink()
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    row = look("controller_credential", settings)
    assert row["status"] == "warn"
    assert expected in row["detail"]
    assert str(path) in row["detail"]


def test_a_folder_is_no_token(tmp_path):
    row = look(
        "controller_credential",
        settings_of(tmp_path, controller__auth__token_path=tmp_path),
    )
    assert (row["status"], row["detail"]) == ("warn", f"{tmp_path} is a folder")


def test_a_good_token_is_not_shown(tmp_path):
    row = look("controller_credential", settings_of(tmp_path))
    assert (row["status"], row["detail"]) == ("ok", f"bearer: {tmp_path / 'token'}")
    assert "secret-token" not in str(row)


def test_no_authentication_needs_nothing(tmp_path):
    settings = settings_of(tmp_path, controller__auth__type="none")
    row = look("controller_credential", settings)
    assert (row["status"], row["detail"]) == ("ok", "none: nothing needed")


@pytest.mark.skipif(os.geteuid() != 0, reason="modes do not bind us otherwise")
def test_a_file_that_the_workers_may_not_read_is_reported(tmp_path):
    path = tmp_path / "secret" / "token"
    let_pass(path.parent)
    path.parent.mkdir(mode=0o700)
    path.write_text("token")
    with pytest.raises(
        CheckWarning, match=f"nobody may not read .* .see {path.parent}"
    ):
        usable(path, "key", account("nobody"))
    path.parent.chmod(0o755)
    path.chmod(0o600)
    with pytest.raises(CheckWarning, match="nobody may not read"):
        usable(path, "key", account("nobody"))
    path.chmod(0o644)
    usable(path, "key", account("nobody"))


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


def mutual(folder, certificate, key, **more):
    return settings_of(
        folder,
        controller__endpoint="https://127.0.0.1:1",
        controller__auth__type="mtls",
        controller__auth__certificate_path=certificate,
        controller__auth__key_path=key,
        **more,
    )


def test_a_certificate_with_its_key_is_fine(tmp_path, authority):
    certificate, key = authority.issue("client")
    key.chmod(0o600)
    row = look("controller_credential", mutual(tmp_path, certificate, key))
    assert (row["status"], row["detail"]) == ("ok", f"mtls: {certificate}, {key}")


def test_a_key_that_everybody_can_read_is_reported(tmp_path, authority):
    certificate, key = authority.issue("client")
    certificate.chmod(0o644)
    key.chmod(0o644)
    row = look("controller_credential", mutual(tmp_path, certificate, key))
    assert (row["status"], row["detail"]) == ("warn", f"everybody can read {key}")


def test_a_key_of_another_certificate_is_reported(tmp_path, authority):
    certificate, _ = authority.issue("client")
    _, key = authority.issue("other")
    key.chmod(0o600)
    row = look("controller_credential", mutual(tmp_path, certificate, key))
    assert row["status"] == "warn"
    assert "KEY_VALUES_MISMATCH" in row["detail"]
    assert "belong together" in row["hint"]


def test_a_key_with_a_password_is_reported_and_nobody_is_asked(tmp_path, authority):
    certificate, key = authority.issue("client", password=b"secret")
    key.chmod(0o600)
    row = look("controller_credential", mutual(tmp_path, certificate, key))
    assert row["status"] == "warn"
    assert "no password" in row["hint"]


@pytest.mark.parametrize("content", ["rubbish", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_authorities_that_are_none_are_reported(tmp_path, content):
    path = tmp_path / "ca.pem"
    path.write_text(content)
    settings = settings_of(tmp_path, controller__auth__ca_path=path)
    row = look("controller_credential", settings)
    assert row["status"] == "warn"
    assert f"certificate files ({path})" in row["detail"]
