"""Google's metadata server."""

from __future__ import annotations

from tests.metadata.reading import failure, one, read


def test_attributes_of_the_instance_go_before_those_of_the_project():
    with one("gce") as fake:
        fake.change("project/attributes/miglet-pool-id", "everyone's")
        fake.change("project/attributes/miglet-org-id", "org-1")
        fake.describe({"miglet-pool-id": "mine"})
        attributes = read(fake).attributes
    assert attributes == {"miglet-pool-id": "mine", "miglet-org-id": "org-1"}


def test_without_project_attributes_is_a_machine_all_the_same():
    with one("gce") as fake:
        fake.fail(404, part="project")
        assert read(fake).vm_id


def test_an_attribute_that_is_no_text_is_named():
    with one("gce") as fake:
        fake.describe({"miglet-pool-id": {"a": 1}})
        error = failure(fake)
    assert "attribute 'miglet-pool-id': expected text" in str(error)


def test_attributes_that_are_no_object_are_refused():
    with one("gce") as fake:
        fake.change("instance/attributes", "text")
        assert "instance/attributes/: expected an object" in str(failure(fake))
