"""The fakes are like the real ones: by the documents, and to the clouds' clients."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.metadata_fakes import FAKES, Fake, FakeAws, FakeAzure, FakeGce
from tests.paths import ROOT

pytestmark = pytest.mark.integration

FLAVOR = {"Metadata-Flavor": "Google"}
V1 = "/computeMetadata/v1/"
LIFE = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


@pytest.fixture
def gce() -> Iterator[FakeGce]:
    with FakeGce() as fake:
        yield fake  # type: ignore[misc]


@pytest.fixture
def aws() -> Iterator[FakeAws]:
    with FakeAws() as fake:
        yield fake  # type: ignore[misc]


@pytest.fixture
def azure() -> Iterator[FakeAzure]:
    with FakeAzure() as fake:
        yield fake  # type: ignore[misc]


def ask(
    fake: Fake, path: str, headers: Mapping[str, str], method: str = "GET"
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            method,
            fake.base + path,
            headers=dict(headers),
            allow_redirects=False,
            timeout=10,
        )


FORWARDED = {"X-Forwarded-For": "10.0.0.1"}

GOOGLE = [
    ("/", FLAVOR, 200, "computeMetadata/\n"),
    (V1 + "instance/id", FLAVOR, 200, "4520031799277581759"),
    (V1 + "instance/id", {}, 403, None),
    (V1 + "instance/id", {"Metadata-Flavor": "google "}, 403, None),
    (V1 + "instance/id", {**FLAVOR, **FORWARDED}, 403, None),
    (V1 + "instance/nothing", FLAVOR, 404, None),
    (V1 + "instance", FLAVOR, 301, None),
    (V1 + "instance/scheduling/", FLAVOR, 200, "automatic-restart\npreemptible\n"),
    (V1 + "instance/scheduling/?alt=xml", FLAVOR, 400, None),
    (V1 + "instance/?wait_for_change=true&timeout_sec=x", FLAVOR, 400, None),
    (V1 + "instance/service-accounts/default/identity", FLAVOR, 400, None),
]


@pytest.mark.parametrize("path, headers, status, body", GOOGLE)
def test_google_by_the_document(gce, path, headers, status, body):
    answer = ask(gce, path, headers)
    assert answer.status_code == status
    assert answer.headers["Metadata-Flavor"] == "Google"
    assert body is None or answer.text == body
    if status == 301:
        assert answer.headers["Location"].endswith("/instance/")


def test_google_json_is_camel_case_except_what_people_named(gce):
    gce.describe({"miglet-pool-id": "pool-1"})
    gce.change("project/attributes/ssh-keys", "x")
    tree = ask(gce, V1 + "?recursive=true", FLAVOR).json()
    assert tree["instance"]["machineType"].endswith("/e2-standard-4")
    assert tree["instance"]["attributes"] == {"miglet-pool-id": "pool-1"}
    project = ask(gce, V1 + "project/attributes/?recursive=true", FLAVOR)
    assert project.json() == {"ssh-keys": "x"}


def test_google_waits_for_a_change_or_the_end_of_the_time(gce):
    path = V1 + "instance/preempted?wait_for_change=true"
    first = ask(gce, f"{path}&last_etag=NONE", FLAVOR)
    known = f"{path}&last_etag={first.headers['ETag']}"
    began = time.monotonic()
    late = ask(gce, f"{known}&timeout_sec=1", FLAVOR)
    assert time.monotonic() - began >= 1.0
    assert late.headers["ETag"] == first.headers["ETag"]
    timer = threading.Timer(0.2, gce.change, ("instance/preempted", "TRUE"))
    timer.start()
    assert ask(gce, f"{known}&timeout_sec=20", FLAVOR).text == "TRUE"
    timer.join()


@pytest.mark.parametrize(
    "life, status", [("1", 200), ("21600", 200), ("0", 400), ("21601", 400), ("x", 400)]
)
def test_amazon_gives_tokens_for_so_long(aws, life, status):
    answer = ask(aws, "/latest/api/token", {LIFE: life}, "PUT")
    assert answer.status_code == status
    assert status != 200 or answer.headers[LIFE] == life


def test_amazon_without_a_life_or_forwarded_gives_none(aws):
    assert ask(aws, "/latest/api/token", {}, "PUT").status_code == 400
    headers = {LIFE: "60", **FORWARDED}
    assert ask(aws, "/latest/api/token", headers, "PUT").status_code == 403


def test_amazon_answers_a_living_token_alone(aws):
    path = "/latest/meta-data/instance-id"
    token = ask(aws, "/latest/api/token", {LIFE: "1"}, "PUT").text
    assert ask(aws, path, {TOKEN: token}).text == "i-0abcdef1234567890"
    assert ask(aws, path, {}).status_code == 401
    assert ask(aws, path, {TOKEN: "x"}).status_code == 401
    assert ask(aws, "/latest/user-data", {TOKEN: token}).status_code == 404
    listing = ask(aws, "/latest/meta-data/placement", {TOKEN: token})
    assert listing.text == "availability-zone"
    aws.tokens[token] = time.monotonic()
    assert ask(aws, path, {TOKEN: token}).status_code == 401
    aws.enabled = False
    assert ask(aws, path, {TOKEN: token}).status_code == 403


METADATA = {"Metadata": "true"}
VERSION = "?api-version=2021-02-01"

MICROSOFT = [
    ("/metadata/instance" + VERSION, METADATA, 200),
    ("/metadata/instance" + VERSION, {}, 400),
    ("/metadata/instance" + VERSION, {**METADATA, **FORWARDED}, 400),
    ("/metadata/instance", METADATA, 400),
    ("/metadata/instance?api-version=1999-01-01", METADATA, 400),
    ("/metadata/instance/compute/vmId" + VERSION, METADATA, 400),
    ("/metadata/instance/compute/vmId" + VERSION + "&format=text", METADATA, 200),
    ("/metadata/instance/nothing" + VERSION, METADATA, 404),
    ("/metadata/scheduledevents" + VERSION, METADATA, 200),
]


@pytest.mark.parametrize("path, headers, status", MICROSOFT)
def test_microsoft_by_the_document(azure, path, headers, status):
    assert ask(azure, path, headers).status_code == status


def test_a_fake_is_a_program_as_well():
    command = [sys.executable, "-m", "tests.metadata_fakes", "gce"]
    attributes = ["--attribute", "miglet-pool-id=pool-1"]
    with subprocess.Popen(
        command + attributes, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout
            name, _, host = process.stdout.readline().strip().partition("=")
            url = f"http://{host}{V1}instance/attributes/miglet-pool-id"
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(url, headers=FLAVOR, timeout=10)
            assert (name, answer.text) == ("GCE_METADATA_HOST", "pool-1")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


# The clouds' own libraries.

GOOGLE_AUTH = """
    import google.auth.transport.requests
    from google.auth.compute_engine import Credentials, IDTokenCredentials, _metadata

    request = google.auth.transport.requests.Request()
    account = Credentials()
    account.refresh(request)
    identity = IDTokenCredentials(
        request, "https://controller.example", use_metadata_identity_endpoint=True
    )
    identity.refresh(request)
    found = {
        "there": _metadata.ping(request),
        "project": _metadata.get_project_id(request),
        "email": _metadata.get_service_account_info(request)["email"],
        "pool": _metadata.get(request, "instance/attributes/miglet-pool-id"),
        "access token": account.token,
        "identity": identity.token.count("."),
    }
"""

BOTOCORE = """
    import os

    import botocore.session
    from botocore.utils import IMDSFetcher, InstanceMetadataRegionFetcher

    address = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    config = {"ec2_metadata_service_endpoint": address}
    session = botocore.session.get_session()
    found = session.get_credentials().get_frozen_credentials()
    found = {
        "key": found.access_key,
        "token": found.token,
        "region": InstanceMetadataRegionFetcher(config=config).retrieve_region(),
        "pool": IMDSFetcher(config=config)._get_request(
            "latest/meta-data/tags/instance/miglet-pool-id",
            None,
            IMDSFetcher(config=config)._fetch_metadata_token(),
        ).text,
    }
"""


def installed(name: str) -> bool:
    """Whether a library is there; its packages above it may not be."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def told_by(script: str, fake: Fake, home: Path) -> dict[str, Any]:
    """What a library's user learns, in a process that knows of the fake alone."""
    code = textwrap.dedent(script) + "\nimport json\nprint(json.dumps(found))\n"
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), **fake.environment}
    environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not installed("google.auth"), reason="google-auth is not there")
def test_google_s_own_library_takes_the_fake_for_google(gce, tmp_path):
    gce.describe({"miglet-pool-id": "pool-1"})
    assert told_by(GOOGLE_AUTH, gce, tmp_path) == {
        "there": True,
        "project": "ci-project",
        "email": "1234-compute@developer.gserviceaccount.com",
        "pool": "pool-1",
        "access token": "ya29.fake",
        "identity": 2,
    }


@pytest.mark.skipif(not installed("botocore"), reason="botocore is not there")
def test_amazon_s_own_library_takes_the_fake_for_amazon(aws, tmp_path):
    aws.describe({"miglet-pool-id": "pool-1"})
    assert told_by(BOTOCORE, aws, tmp_path) == {
        "key": "ASIAFAKEFAKEFAKEFAKE",
        "token": "fake-session-token",
        "region": "eu-central-1",
        "pool": "pool-1",
    }
    assert [each for each in aws.asked if each.method == "PUT"]


def test_every_fake_points_its_clients_at_itself():
    for name, made in FAKES.items():
        with made() as fake:
            assert fake.environment["MIGLET_CLOUD"] == name
            assert any(fake.host in text for text in fake.environment.values())
