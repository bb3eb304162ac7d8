"""Opening a connection, and naming what stands in its way."""

from __future__ import annotations

import ssl
import time

import pytest

from miglet.bootstrap.framework import CheckWarning
from miglet.bootstrap.probe import Place, connect
from tests.bootstrap.servers import at, over_tls, served, silent


def test_each_address_of_a_name_is_tried():
    with served(silent) as port:
        both = at(("127.0.0.1", 1), ("127.0.0.1", port))
        place = Place("controller.test", port, None)
        with connect(place, time.monotonic() + 5, both) as connection:
            assert connection.getpeername() == ("127.0.0.1", port)


def test_every_address_that_failed_is_reported():
    both = at(("127.0.0.1", 1), ("127.0.0.2", 1))
    place = Place("controller.test", 1, None)
    with pytest.raises(CheckWarning) as caught:
        connect(place, time.monotonic() + 5, both)
    assert str(caught.value) == (
        "controller.test:1: 127.0.0.1 Connection refused, 127.0.0.2 Connection refused"
    )


def test_the_name_of_the_place_is_what_the_certificate_must_be_for(authority):
    pair = authority.issue("controller", names=("controller.test",))
    context = ssl.create_default_context(cafile=authority.path)
    with served(over_tls(*pair, silent)) as port:
        there = at(("127.0.0.1", port))
        place = Place("controller.test", port, context)
        with connect(place, time.monotonic() + 5, there) as connection:
            assert connection.version() == "TLSv1.3"
        with pytest.raises(CheckWarning, match="mismatch"):
            other = place._replace(host="other.test")
            connect(other, time.monotonic() + 5, there)
