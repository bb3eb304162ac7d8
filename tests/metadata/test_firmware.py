"""The cloud is found from files, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from miglet.errors import Misconfigured
from miglet.metadata.cloud import LONGEST_FIELD_BYTES, cloud_name, dmi_field

AZURE = {"chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n"}

MACHINES = {
    "gce by product": ({"product_name": "Google Compute Engine\n"}, "gce"),
    "gce by its short name": ({"product_name": "Google"}, "gce"),
    "gce by serial": ({"product_serial": "GoogleCloud-0123ABCD\n"}, "gce"),
    "aws nitro": ({"sys_vendor": "Amazon EC2\n"}, "aws"),
    "aws xen": ({"hypervisor_uuid": "ec2e1916-9099-7caf-fd21-012345abcdef\n"}, "aws"),
    "aws id": ({"product_uuid": "EC2E1916-9099-7CAF-FD21-012345ABCDEF"}, "aws"),
    "aws id swapped": ({"product_uuid": "45E12AEC-DCD1-B213-94ED-012345ABCDEF"}, "aws"),
    "azure": (AZURE, "azure"),
    "a machine of one's own": ({"sys_vendor": "LENOVO", "product_name": "20XY"}, None),
    "other kvm": ({"product_uuid": "d9a2b1c0-0000-4000-8000-0123456789ab"}, None),
    "hyper-v, not azure": ({"sys_vendor": "Microsoft Corporation"}, None),
    "never set": ({"product_name": "\xff" * 32, "product_uuid": "Not Settable"}, None),
    "a container": ({}, None),
}


def described(folder: Path, fields: dict[str, str]) -> dict[str, str]:
    """The environment of a machine whose firmware says so."""
    for name, text in fields.items():
        (folder / name).write_text(text, encoding="latin-1")
    return {"MIGLET_DMI_ROOT": str(folder)}


@pytest.mark.parametrize("fields, cloud", MACHINES.values(), ids=MACHINES)
def test_the_firmware_says_which_cloud_it_is(tmp_path, fields, cloud):
    assert cloud_name(described(tmp_path, fields)) == cloud


def test_a_missing_folder_is_no_cloud(tmp_path):
    assert cloud_name({"MIGLET_DMI_ROOT": str(tmp_path / "none")}) is None


@pytest.mark.parametrize(
    "said, cloud",
    [("gce", "gce"), (" AWS ", "aws"), ("azure", "azure"), ("none", None)],
)
def test_a_cloud_that_is_named_goes_before_the_firmware(tmp_path, said, cloud):
    environ = described(tmp_path, AZURE) | {"MIGLET_CLOUD": said}
    assert cloud_name(environ) == cloud


def test_an_empty_name_leaves_it_to_the_firmware(tmp_path):
    assert cloud_name(described(tmp_path, AZURE) | {"MIGLET_CLOUD": ""}) == "azure"


def test_an_unknown_cloud_is_a_fault_that_names_the_known_ones():
    with pytest.raises(Misconfigured) as caught:
        cloud_name({"MIGLET_CLOUD": "gcp"})
    assert str(caught.value) == (
        "environment MIGLET_CLOUD: expected one of gce, aws, azure, none; found 'gcp'"
    )


def test_a_field_is_bounded_and_a_folder_in_its_place_is_nothing(tmp_path):
    (tmp_path / "long").write_text("x" * 10_000)
    assert len(dmi_field(tmp_path / "long")) == LONGEST_FIELD_BYTES
    assert dmi_field(tmp_path) == ""
