"""Azure's metadata service, where one document says everything."""

from __future__ import annotations

import pytest

from tests.metadata.reading import failure, one, read


def test_user_data_is_decoded():
    with one("azure") as fake:
        fake.set_user_data(b"#miglet-config\n")
        assert read(fake).user_data == b"#miglet-config\n"


@pytest.mark.parametrize("wrong", ["%%%", "ä", 5, ["x"]])
def test_user_data_that_is_not_base64_is_refused(wrong):
    with one("azure") as fake:
        fake.tree["compute"]["userData"] = wrong
        assert "compute.userData: expected base64" in str(failure(fake))


def test_every_request_has_a_version():
    with one("azure") as fake:
        read(fake)
        assert {each.query["api-version"] for each in fake.asked} == {"2021-02-01"}


def test_an_image_of_ones_own_goes_by_its_id():
    with one("azure") as fake:
        image = "/subscriptions/1/resourceGroups/ci/providers/images/golden-7"
        fake.tree["compute"]["storageProfile"]["imageReference"] = {"id": image}
        fake.tree["compute"]["zone"] = ""
        found = read(fake)
        assert (found.image, found.zone) == (image, "westeurope")


@pytest.mark.parametrize("tags", [5, "a:b", {"a": "b"}, [5], [{"name": "x"}]])
def test_tags_of_another_shape_are_none(tags):
    with one("azure") as fake:
        fake.tree["compute"]["tagsList"] = tags
        assert read(fake).attributes == {}


def test_status_410_means_later():
    with one("azure") as fake:
        fake.fail(410, times=1)
        assert read(fake).vm_id
