"""The controller's token is watched in the metadata and kept in its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from miglet.metadata.credential import (
    CONTROLLER_TOKEN,
    LONGEST_TOKEN,
    AwaitedToken,
    awaited_token,
    token_path,
    usable_token,
)
from miglet.redaction import redact
from tests.metadata_fakes import FAKES, Fake
from tests.sample_settings import sample_settings

FIRST, SECOND = "first-token-of-this-machine", "second-one"


@pytest.fixture
def kept(tmp_path) -> Path:
    path = tmp_path / "controller-token"
    path.write_text("")
    return path


def awaited(fake: Fake, kept: Path) -> AwaitedToken:
    name = fake.environment["MIGLET_CLOUD"]
    usual = str(kept.with_name("usual"))
    return AwaitedToken(name, fake.environment, str(kept), usual)


def test_an_attribute_that_is_set_later_is_taken_once(fake, kept):
    token = awaited(fake, kept)
    assert not token.look()
    fake.describe({CONTROLLER_TOKEN: FIRST})
    assert token.look()
    assert kept.read_text() == f"{FIRST}\n"
    assert not token.look()
    assert FIRST not in redact(f"it is {FIRST}")
    token.close()


def test_a_token_that_comes_as_a_file_serves_until_there_is_an_attribute(fake, kept):
    token = awaited(fake, kept)
    kept.with_name("usual").write_text(SECOND)
    assert token.look()
    fake.describe({CONTROLLER_TOKEN: FIRST})
    assert token.look()
    assert kept.read_text() == f"{FIRST}\n"
    token.close()


@pytest.mark.parametrize("wrong", ["", "two words", "x" * (LONGEST_TOKEN + 1)])
def test_what_is_no_token_does_not_replace_one(kept, wrong):
    assert usable_token(wrong) is None
    kept.write_text(f"{FIRST}\n")
    with FAKES["gce"]() as fake:
        fake.describe({CONTROLLER_TOKEN: wrong})
        token = awaited(fake, kept)
        assert not token.look()
        token.close()
    assert kept.read_text() == f"{FIRST}\n"


def test_a_metadata_server_that_fails_is_logged_once(kept, caplog):
    with FAKES["gce"]() as fake:
        fake.fail(500)
        token = awaited(fake, kept)
        assert not token.look() and not token.look()
        token.close()
    assert len(caplog.records) == 1


def test_a_link_in_the_place_of_the_file_is_not_written_through(kept, tmp_path, caplog):
    kept.unlink()
    kept.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("")
    with FAKES["gce"]() as fake:
        fake.describe({CONTROLLER_TOKEN: FIRST})
        token = awaited(fake, kept)
        assert not token.look()
        token.close()
    assert (tmp_path / "elsewhere").read_text() == ""


def test_only_a_token_from_metadata_is_watched(tmp_path):
    path = token_path(str(tmp_path))
    places = {"paths.runtime": str(tmp_path), "controller.auth.token_path": path}
    with FAKES["gce"]() as fake:
        arguments = ("gce", fake.environment, "/no/such/file")
        for changes, wanted in (
            ({}, True),
            ({"controller.auth.token_path": "/etc/miglet/token"}, False),
            ({"controller.auth.type": "none"}, False),
        ):
            settings = sample_settings({**places, **changes})
            assert bool(awaited_token(settings, *arguments)) is wanted
