"""What every metadata server may do wrong, and what becomes of it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from miglet.metadata.attempts import Limits, MetadataRefused, MetadataUnavailable
from miglet.metadata.clouds import open_cloud
from tests.metadata.reading import failure, one, read
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

pytestmark = pytest.mark.integration


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


def test_what_passes_is_waited_for(fake):
    fake.fail(503, times=2)
    fake.fail(429, times=1)
    fake.fail(dropped, times=1)
    assert read(fake).vm_id


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_that_never_has_time_is_given_up_after_five_tries(fake, code):
    fake.fail(code)
    error = failure(fake)
    assert error.transient
    assert f" {code} " in str(error)
    assert len(fake.asked) == 5


def test_a_server_that_asks_for_more_time_than_there_is_gets_none(fake):
    fake.fail(status(429, Retry_After="30"))
    failure(fake)
    assert len(fake.asked) == 1


def test_a_server_that_asks_for_a_little_time_gets_it(fake):
    fake.fail(status(503, Retry_After="1"), times=1)
    began = time.monotonic()
    assert read(fake).vm_id
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("code", [400, 403, 404, 405])
def test_a_server_that_says_no_is_asked_once(fake, code):
    fake.fail(code)
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
    fake.fail(mischief)
    error = failure(fake)
    assert words in str(error)
    assert str(error).startswith(fake.host)
    assert "secret" not in str(error)


@pytest.mark.parametrize("name", ["gce", "aws"])
def test_an_answer_without_the_marks_of_the_cloud_is_somebody_elses(name):
    with one(name) as fake:
        fake.fail(unmarked)
        error = failure(fake)
        assert isinstance(error, MetadataRefused)
        assert "something else answers at this address" in str(error)
        assert len(fake.asked) == 1


@pytest.mark.parametrize("name", ["gce", "azure"])
def test_a_page_with_the_right_marks_is_called_a_page(name):
    with one(name) as fake:
        fake.fail(genuine_page)
        assert "expected a JSON object, found an HTML page" in str(failure(fake))


def test_a_silent_server_costs_no_more_than_the_budget(fake):
    fake.fail(hang)
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
    cloud = open_cloud("gce", environ, limits)
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
    cloud = open_cloud("gce", {"GCE_METADATA_HOST": host}, limits)
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
        cloud = open_cloud(name, environ, limits)
        with pytest.raises(MetadataUnavailable):
            cloud.metadata(limits.deadline())
