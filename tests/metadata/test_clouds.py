"""What is read from each cloud, and what becomes of each thing that can go wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from miglet.metadata.cloud import (
    Limits,
    Metadata,
    MetadataForbidden,
    MetadataRefused,
    MetadataUnavailable,
    cloud_called,
)
from tests.metadata_fakes import FAKES, Fake
from tests.metadata_fakes.serving import (
    dropped,
    genuine_page,
    hang,
    huge,
    page,
    redirected,
    status,
    unmarked,
)
from tests.support import Stopwatch

#: Soon over; the number of tries is the real one.
QUICK = Limits(
    attempt_seconds=1.0,
    shortest_pause_seconds=0.001,
    longest_pause_seconds=0.002,
    overall_seconds=5.0,
)

CLOUDS = sorted(FAKES)


@pytest.fixture(params=CLOUDS)
def fake(request) -> Iterator[Fake]:
    with FAKES[request.param]() as made:
        yield made


@contextmanager
def one(name: str) -> Iterator[Fake]:
    with FAKES[name]() as made:
        yield made


def read(fake: Fake, limits: Limits = QUICK) -> Metadata:
    """The metadata, as a start reads it."""
    cloud = cloud_called(fake.environment["MIGLET_CLOUD"], fake.environment, limits)
    try:
        return cloud.metadata(limits.deadline())
    finally:
        cloud.close()


def failure(fake: Fake, limits: Limits = QUICK) -> MetadataUnavailable:
    """What reading fails with."""
    with pytest.raises(MetadataUnavailable) as caught:
        read(fake, limits)
    return caught.value


IDENTITIES = {
    "gce": (
        "4520031799277581759",
        "europe-west1-b",
        "e2-standard-4",
        "projects/ci-project/global/images/golden-7",
    ),
    "aws": (
        "i-0abcdef1234567890",
        "eu-central-1a",
        "m6i.xlarge",
        "ami-0123456789abcdef0",
    ),
    "azure": (
        "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
        "westeurope-1",
        "Standard_D4s_v5",
        "Debian:debian-12:12-gen2:latest",
    ),
}


def test_the_machine_learns_who_and_where_it_is(fake):
    told = read(fake)
    assert IDENTITIES[told.cloud] == (
        told.vm_id,
        told.zone,
        told.machine_type,
        told.image,
    )


def test_instances_have_a_name_and_a_host_name_where_their_cloud_gives_them(fake):
    told = read(fake)
    assert (told.instance_name, told.hostname) == {
        "gce": ("runner-1", "runner-1.c.ci-project.internal"),
        "aws": (None, None),
        "azure": ("runner-1", None),
    }[told.cloud]


def test_attributes_come_as_they_were_set(fake):
    fake.describe({"miglet-pool-id": "pool-1", "miglet-config": "org_id: ü\n"})
    attributes = read(fake).attributes
    assert attributes["miglet-pool-id"] == "pool-1"
    assert attributes["miglet-config"].rstrip() == "org_id: ü"


def test_nothing_of_it_is_in_its_repr(fake):
    fake.describe({"miglet-controller-token": "hunter2-hunter2"})
    assert "hunter2" not in repr(read(fake))


def test_no_proxy_is_asked(fake, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, address)
        monkeypatch.setenv("no_proxy", "")
        assert read(fake).vm_id


def test_no_request_says_that_it_was_forwarded(fake):
    read(fake)
    assert not [each for each in fake.asked if "X-Forwarded-For" in each.headers]


# Google.


def test_gce_attributes_of_the_instance_go_before_those_of_the_project():
    with one("gce") as fake:
        fake.change("project/attributes/miglet-pool-id", "everyone's")
        fake.change("project/attributes/miglet-org-id", "org-1")
        fake.describe({"miglet-pool-id": "mine"})
        attributes = read(fake).attributes
    assert attributes == {"miglet-pool-id": "mine", "miglet-org-id": "org-1"}


def test_gce_without_project_attributes_is_a_machine_all_the_same():
    with one("gce") as fake:
        fake.trouble(404, part="project")
        assert read(fake).vm_id


def test_gce_an_attribute_that_is_no_text_is_named():
    with one("gce") as fake:
        fake.describe({"miglet-pool-id": {"a": 1}})
        error = failure(fake)
    assert "attribute 'miglet-pool-id': expected text" in str(error)


def test_gce_attributes_that_are_no_object_are_refused():
    with one("gce") as fake:
        fake.change("instance/attributes", "text")
        assert "instance/attributes/: expected an object" in str(failure(fake))


# Amazon.


def test_aws_one_token_serves_for_everything():
    with one("aws") as fake:
        fake.describe({"miglet-pool-id": "pool-1"})
        fake.change("user-data", b"#!/bin/sh\n")
        assert read(fake).user_data == b"#!/bin/sh\n"
        assert fake.paths().count("/latest/api/token") == 1
        lives = {
            each.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            for each in fake.asked
            if each.method == "PUT"
        }
        assert lives == {"21600"}


def test_aws_tags_of_others_are_not_even_asked_for():
    with one("aws") as fake:
        fake.describe({"Name": "runner", "miglet-pool-id": "pool-1"})
        assert read(fake).attributes == {"miglet-pool-id": "pool-1"}
        assert "/latest/meta-data/tags/instance/Name" not in fake.paths()


def test_aws_without_tags_and_user_data_is_a_machine_all_the_same():
    with one("aws") as fake:
        told = read(fake)
        assert (told.attributes, told.user_data) == ({}, None)
        assert fake.paths().count("/latest/user-data") == 1, "404 is never retried"


def test_aws_a_token_that_expired_is_replaced_once():
    with one("aws") as fake:
        cloud = cloud_called("aws", fake.environment, QUICK)
        cloud.metadata(QUICK.deadline())
        fake.forget_tokens()
        assert cloud.metadata(QUICK.deadline()).vm_id
        cloud.close()
        assert fake.paths().count("/latest/api/token") == 2


def test_aws_that_never_takes_its_own_token_is_given_up():
    with one("aws") as fake:
        fake.trouble(401, part="dynamic")
        error = failure(fake)
        assert "401 Unauthorized" in str(error)
        assert len(fake.asked) == 4, "two tokens, two questions"


def test_aws_that_is_switched_off_is_asked_once():
    with one("aws") as fake:
        fake.enabled = False
        error = failure(fake)
        assert isinstance(error, MetadataForbidden)
        assert "enable the instance metadata service" in error.hint
        assert len(fake.asked) == 1


def test_aws_never_falls_back_to_the_first_version():
    with one("aws") as fake:
        fake.trouble(404, part="api/token")
        failure(fake)
        assert set(fake.paths()) == {"/latest/api/token"}


def test_aws_a_token_that_is_never_answered_ends_in_time():
    """What a container behind the hop limit of 1 sees."""
    with one("aws") as fake:
        fake.trouble(hang, part="api/token")
        watch = Stopwatch()
        limits = Limits(attempt_seconds=0.2, overall_seconds=0.5)
        assert "no complete answer" in str(failure(fake, limits))
        assert watch.seconds() < 1.5


# Microsoft.


def test_azure_user_data_is_decoded():
    with one("azure") as fake:
        fake.set_user_data(b"#miglet-config\n")
        assert read(fake).user_data == b"#miglet-config\n"


@pytest.mark.parametrize("wrong", ["%%%", "ä", 5, ["x"]])
def test_azure_user_data_that_is_not_base64_is_refused(wrong):
    with one("azure") as fake:
        fake.tree["compute"]["userData"] = wrong
        assert "compute.userData: expected base64" in str(failure(fake))


def test_azure_every_request_has_a_version():
    with one("azure") as fake:
        read(fake)
        assert {each.query["api-version"] for each in fake.asked} == {"2021-02-01"}


def test_azure_an_image_of_ones_own_goes_by_its_id():
    with one("azure") as fake:
        image = "/subscriptions/1/resourceGroups/ci/providers/images/golden-7"
        fake.tree["compute"]["storageProfile"]["imageReference"] = {"id": image}
        fake.tree["compute"]["zone"] = ""
        told = read(fake)
        assert (told.image, told.zone) == (image, "westeurope")


@pytest.mark.parametrize("tags", [5, "a:b", {"a": "b"}, [5], [{"name": "x"}]])
def test_azure_tags_of_another_shape_are_none(tags):
    with one("azure") as fake:
        fake.tree["compute"]["tagsList"] = tags
        assert read(fake).attributes == {}


# What can go wrong with every one of them.


def test_what_passes_is_waited_for(fake):
    fake.trouble(503, times=2)
    fake.trouble(429, times=1)
    fake.trouble(dropped, times=1)
    assert read(fake).vm_id


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_that_never_has_time_is_given_up_after_five_tries(fake, code):
    fake.trouble(code)
    error = failure(fake)
    assert error.transient
    assert f" {code} " in str(error)
    assert len(fake.asked) == 5


def test_azure_410_means_later():
    with one("azure") as fake:
        fake.trouble(410, times=1)
        assert read(fake).vm_id


def test_a_server_that_asks_for_more_time_than_there_is_gets_none(fake):
    fake.trouble(status(429, Retry_After="30"))
    failure(fake)
    assert len(fake.asked) == 1


def test_a_server_that_asks_for_a_little_time_gets_it(fake):
    fake.trouble(status(503, Retry_After="1"), times=1)
    began = time.monotonic()
    assert read(fake).vm_id
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("code", [400, 403, 404, 405])
def test_a_server_that_says_no_is_asked_once(fake, code):
    fake.trouble(code)
    error = failure(fake)
    assert not error.transient
    assert str(code) in str(error)
    assert len(fake.asked) == 1


WRONG = {
    "redirect": (redirected, "302 Found: redirect to portal.example not followed"),
    "page": (page, ""),
    "marked page": (genuine_page, ""),
    "huge": (huge, "longer than 1048576 bytes"),
    "dropped": (dropped, ""),
}


@pytest.mark.parametrize("mischief, words", WRONG.values(), ids=WRONG)
def test_what_is_no_answer_is_named_with_the_host(fake, mischief, words):
    fake.trouble(mischief)
    error = failure(fake)
    assert words in str(error)
    assert str(error).startswith(fake.host)
    assert "secret" not in str(error)


@pytest.mark.parametrize("name", ["gce", "aws"])
def test_an_answer_without_the_marks_of_the_cloud_is_somebody_elses(name):
    with one(name) as fake:
        fake.trouble(unmarked)
        error = failure(fake)
        assert isinstance(error, MetadataRefused)
        assert "something else answers at this address" in str(error)
        assert len(fake.asked) == 1


@pytest.mark.parametrize("name", ["gce", "azure"])
def test_a_page_with_the_right_marks_is_called_a_page(name):
    with one(name) as fake:
        fake.trouble(genuine_page)
        assert "expected a JSON object, found an HTML page" in str(failure(fake))


def test_a_silent_server_costs_no_more_than_the_budget(fake):
    fake.trouble(hang)
    watch = Stopwatch()
    failure(fake, Limits(attempt_seconds=0.3, overall_seconds=0.8))
    assert watch.seconds() < 1.8


def test_a_server_that_drips_costs_no_more_than_the_budget():
    """A byte now and then starts every socket's timeout anew."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()
    thread = threading.Thread(target=drip, args=(server, stop))
    thread.start()
    environ = {"GCE_METADATA_HOST": f"127.0.0.1:{server.getsockname()[1]}"}
    limits = Limits(attempt_seconds=0.3, tries=2, overall_seconds=0.8)
    watch = Stopwatch()
    cloud = cloud_called("gce", environ, limits)
    with pytest.raises(MetadataUnavailable):
        cloud.metadata(limits.deadline())
    assert watch.seconds() < 1.8
    cloud.close()
    stop.set()
    thread.join()
    server.close()


def drip(server: socket.socket, stop: threading.Event) -> None:
    """Answer everybody, one byte at a time, for ever."""
    server.settimeout(0.05)
    guests: list[socket.socket] = []
    while not stop.wait(0.02):
        with suppress(TimeoutError):
            guests.append(server.accept()[0])
        for guest in list(guests):
            try:
                guest.send(b"H")
            except OSError:
                guests.remove(guest)
                guest.close()
    for guest in guests:
        guest.close()


def test_a_refused_connection_is_tried_again_after_pauses():
    """Five refusals within milliseconds must not use up all tries."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    limits = Limits(tries=3)
    began = time.monotonic()
    cloud = cloud_called("gce", {"GCE_METADATA_HOST": host}, limits)
    with pytest.raises(MetadataUnavailable, match="refused"):
        cloud.metadata(limits.deadline())
    assert time.monotonic() - began >= 2 * limits.shortest_pause_seconds


ADDRESSES = ["bad host", "[", "host:port", "..", "x" * 300]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_is_unavailable_not_a_crash(address):
    limits = Limits(tries=1, overall_seconds=1.0)
    for name, environ in {
        "gce": {"GCE_METADATA_HOST": address},
        "aws": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": address},
        "azure": {"MIGLET_AZURE_METADATA_ENDPOINT": address},
    }.items():
        cloud = cloud_called(name, environ, limits)
        with pytest.raises(MetadataUnavailable):
            cloud.metadata(limits.deadline())


def test_pauses_are_random_and_within_their_limits():
    limits = Limits()
    pauses = [limits.pause(failures) for failures in (1, 2, 3, 4) for _ in range(50)]
    assert min(pauses) >= 0.2
    assert max(pauses) <= 2.0
    assert len(set(pauses)) > 100


def test_the_real_limits_are_what_the_documents_say():
    limits = Limits()
    assert (limits.tries, limits.attempt_seconds) == (5, 3.0)
    assert limits.overall_seconds == 20.0
