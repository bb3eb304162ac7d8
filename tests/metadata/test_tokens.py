"""The registration token in the metadata: read anew, judged, never repeated."""

from __future__ import annotations

import json
import time

import pytest

from miglet.controller.answers import RegistrationToken
from miglet.metadata.attempts import MetadataUnavailable
from miglet.metadata.tokens import (
    TokenExpired,
    TokenUnusable,
    registration_token,
)
from miglet.redaction import redact
from tests.metadata_fakes import Fake
from tests.metadata_fakes.serving import hang
from tests.sample_settings import sample_settings
from tests.support import Stopwatch

pytestmark = pytest.mark.integration

TOKEN = "LLBF3JGZDX3P5PMEXLND6TS6FCWO6"

#: The same place on each cloud, as a path.
PATHS = {
    "gce": "instance/attributes/miglet-registration-token",
    "aws": "meta-data/tags/instance/miglet-registration-token",
    "azure": "instance/compute/tagsList/0/value",
}


def read(
    fake: Fake, path: str = "miglet-registration-token", seconds: float = 2.0
) -> RegistrationToken:
    github = {
        "org": "octo",
        "runner_group": "ci",
        "labels": ["self-hosted", "x64"],
        "metadata_path": path,
    }
    settings = sample_settings({"github": github})
    return registration_token(settings, fake.environment, seconds)


def put(fake: Fake, text: str) -> None:
    fake.describe({"miglet-registration-token": text})


def test_a_token_alone_is_enough(fake):
    put(fake, TOKEN + "\n")
    assert read(fake) == RegistrationToken(
        token=TOKEN,
        expires_at=None,
        runner_url="https://github.com/octo",
        runner_group="ci",
        labels=("self-hosted", "x64"),
    )


def test_it_may_lie_at_any_path(fake):
    put(fake, TOKEN)
    assert read(fake, PATHS[fake.environment["MIGLET_CLOUD"]]).token == TOKEN


@pytest.mark.parametrize("name", ["token", "registration_token"])
def test_github_s_own_answer_is_taken_as_it_is(fake, name):
    put(fake, json.dumps({name: TOKEN, "expires_at": "2099-01-22T12:13:35.123-08:00"}))
    found = read(fake)
    assert found.token == TOKEN
    assert found.expires_at == pytest.approx(4072796015.123)


def test_json_without_a_time_of_expiry_is_taken(gce):
    put(gce, json.dumps({"token": TOKEN}))
    assert read(gce).expires_at is None


def test_a_token_that_is_expired_on_arrival_is_named_as_such(fake):
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 90))
    put(fake, json.dumps({"token": TOKEN, "expires_at": at}))
    with pytest.raises(TokenExpired, match="the token expired 9[0-9] s ago") as caught:
        read(fake)
    assert TOKEN not in str(caught.value)


def test_a_token_that_was_replaced_is_read_anew(gce):
    put(gce, TOKEN)
    read(gce)
    put(gce, TOKEN[::-1])
    assert read(gce).token == TOKEN[::-1]


def test_it_is_masked_and_not_in_its_repr(gce):
    put(gce, TOKEN)
    assert TOKEN not in repr(read(gce))
    assert TOKEN not in redact(f"config.sh says {TOKEN}")


BAD = {
    "nothing": ("", "found nothing"),
    "two words": (f"{TOKEN} {TOKEN}", "found something else"),
    "too long": ("x" * 5000, "found something else"),
    "broken json": ("{" + TOKEN, "not JSON that we take"),
    "no token in it": ("{}", "token: missing"),
    "no text": ('{"token": 5}', "token: a number, text expected"),
    "no time": (
        json.dumps({"token": TOKEN, "expires_at": "soon"}),
        "expires_at: not a time",
    ),
}


@pytest.mark.parametrize("text, words", BAD.values(), ids=BAD)
def test_what_is_no_token_is_named_with_its_place_and_not_repeated(gce, text, words):
    put(gce, text)
    with pytest.raises(TokenUnusable) as caught:
        read(gce)
    assert words in str(caught.value)
    assert "miglet-registration-token" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not caught.value.transient


def test_a_place_where_nothing_is_is_named(fake):
    with pytest.raises(TokenUnusable, match="there is no such metadata on"):
        read(fake)


def test_one_look_is_one_try(fake):
    fake.fail(503)
    with pytest.raises(MetadataUnavailable) as caught:
        read(fake)
    assert caught.value.transient
    assert len(fake.asked) == 1


def test_a_silent_server_costs_no_more_than_the_look_may_take(fake):
    fake.fail(hang)
    watch = Stopwatch()
    with pytest.raises(MetadataUnavailable):
        read(fake, seconds=0.3)
    assert watch.seconds() < 1.0


def test_without_a_cloud_there_is_no_such_token(tmp_path):
    settings = sample_settings({"github": {"metadata_path": "x", "org": "octo"}})
    with pytest.raises(TokenUnusable, match="in no cloud"):
        registration_token(settings, {"MIGLET_DMI_ROOT": str(tmp_path)})
