"""Reading the metadata of a fake cloud, as a start does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from miglet.metadata.attempts import Limits, MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.clouds import open_cloud
from tests.metadata_fakes import FAKES, Fake

#: Soon over; the number of tries is the real one.
QUICK = Limits(
    attempt_seconds=1.0,
    shortest_pause_seconds=0.001,
    longest_pause_seconds=0.002,
    overall_seconds=5.0,
)


@contextmanager
def one(name: str) -> Iterator[Fake]:
    """The fake of that cloud, while it runs."""
    with FAKES[name]() as made:
        yield made


def read(fake: Fake, limits: Limits = QUICK) -> Metadata:
    """The metadata, as a start reads it."""
    cloud = open_cloud(fake.environment["MIGLET_CLOUD"], fake.environment, limits)
    try:
        return cloud.metadata(limits.deadline())
    finally:
        cloud.close()


def failure(fake: Fake, limits: Limits = QUICK) -> MetadataUnavailable:
    """What reading fails with."""
    with pytest.raises(MetadataUnavailable) as caught:
        read(fake, limits)
    return caught.value
