"""Amazon's metadata service, whose every answer needs a token."""

from __future__ import annotations

from miglet.metadata.attempts import Limits, MetadataForbidden
from miglet.metadata.clouds import open_cloud
from tests.metadata.reading import QUICK, failure, one, read
from tests.metadata_fakes.serving import hang
from tests.support import Stopwatch


def test_one_token_serves_for_everything():
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


def test_tags_of_others_are_not_even_asked_for():
    with one("aws") as fake:
        fake.describe({"Name": "runner", "miglet-pool-id": "pool-1"})
        assert read(fake).attributes == {"miglet-pool-id": "pool-1"}
        assert "/latest/meta-data/tags/instance/Name" not in fake.paths()


def test_without_tags_and_user_data_is_a_machine_all_the_same():
    with one("aws") as fake:
        found = read(fake)
        assert (found.attributes, found.user_data) == ({}, None)
        assert fake.paths().count("/latest/user-data") == 1, "404 is never retried"


def test_a_token_that_expired_is_replaced_once():
    with one("aws") as fake:
        cloud = open_cloud("aws", fake.environment, QUICK)
        cloud.metadata(QUICK.deadline())
        fake.forget_tokens()
        assert cloud.metadata(QUICK.deadline()).vm_id
        cloud.close()
        assert fake.paths().count("/latest/api/token") == 2


def test_a_service_that_never_takes_its_own_token_is_given_up():
    with one("aws") as fake:
        fake.fail(401, part="dynamic")
        error = failure(fake)
        assert "401 Unauthorized" in str(error)
        assert len(fake.asked) == 4, "two tokens, two questions"


def test_a_service_that_is_switched_off_is_asked_once():
    with one("aws") as fake:
        fake.enabled = False
        error = failure(fake)
        assert isinstance(error, MetadataForbidden)
        assert "enable the instance metadata service" in error.hint
        assert len(fake.asked) == 1


def test_never_falls_back_to_the_first_version():
    with one("aws") as fake:
        fake.fail(404, part="api/token")
        failure(fake)
        assert set(fake.paths()) == {"/latest/api/token"}


def test_a_token_that_is_never_answered_ends_in_time():
    """What a container behind the hop limit of 1 sees."""
    with one("aws") as fake:
        fake.fail(hang, part="api/token")
        watch = Stopwatch()
        limits = Limits(attempt_seconds=0.2, overall_seconds=0.5)
        assert "no complete answer" in str(failure(fake, limits))
        assert watch.seconds() < 1.5
