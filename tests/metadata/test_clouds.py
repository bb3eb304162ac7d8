"""Every cloud of the registry keeps to what a cloud is, and the firmware names one."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from pathlib import Path

import pytest

from miglet.config.sources import environment_layer
from miglet.controller.contract import schema
from miglet.errors import Misconfigured
from miglet.metadata.attempts import Limits
from miglet.metadata.cloud import Firmware
from miglet.metadata.clouds import (
    CLOUDS,
    cloud_name,
    metadata_addresses,
    metadata_hosts,
    open_cloud,
)
from tests.metadata.reading import read
from tests.metadata_fakes import FAKES
from tests.paths import ROOT

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


@pytest.fixture(params=sorted(CLOUDS))
def cloud(request):
    return CLOUDS[request.param]


# Adding a cloud: what each of them has.


def test_every_cloud_has_a_fake_and_a_firmware_that_names_it():
    assert CLOUDS.keys() == FAKES.keys()
    assert {cloud for _, cloud in MACHINES.values() if cloud} == CLOUDS.keys()


def test_no_firmware_describes_two_clouds(tmp_path):
    for name, (fields, expected) in MACHINES.items():
        folder = tmp_path / name
        folder.mkdir()
        described(folder, fields)
        firmware = Firmware(folder, folder / "hypervisor_uuid")
        found = [each for each in CLOUDS if CLOUDS[each].is_described_by(firmware)]
        assert found == ([expected] if expected else [])


def test_its_addresses_can_be_blocked_and_are_behind_no_proxy(cloud):
    assert cloud.addresses
    for address in cloud.addresses:
        assert ipaddress.ip_address(address).is_private or address == "168.63.129.16"
    assert {*cloud.addresses} <= {*metadata_addresses()} < {*metadata_hosts()}
    assert {*cloud.host_names} <= {*metadata_hosts()}


def test_the_variable_that_names_its_server_is_no_setting(cloud):
    layer = environment_layer({cloud.endpoint_variable: "http://127.0.0.1"})
    assert not layer.values and not layer.faults


def test_its_server_is_the_one_that_the_variable_names(fake):
    assert read(fake).cloud in CLOUDS
    assert fake.asked


def test_nothing_is_connected_to_before_the_first_question(cloud):
    environ = {cloud.endpoint_variable: "127.0.0.1:9"}
    open_cloud(cloud.name, environ, Limits()).close()


def test_the_contract_and_the_documentation_name_it(cloud):
    text = json.dumps(schema("event"))
    assert f"{cloud.name}, " in text or f", {cloud.name}" in text
    page = (ROOT / "docs" / "metadata.rst").read_text()
    for word in (cloud.name, cloud.endpoint_variable, *cloud.addresses):
        assert f"``{word}``" in page or word in page.split()


def test_to_know_the_cloud_costs_no_http_library():
    program = (
        "import sys, miglet.metadata.clouds;"
        "print(*{'requests', 'urllib3', 'http.client'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


# What a start learns from each.


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
    found = read(fake)
    assert IDENTITIES[found.cloud] == (
        found.vm_id,
        found.zone,
        found.machine_type,
        found.image,
    )


def test_instances_have_a_name_and_a_host_name_where_their_cloud_gives_them(fake):
    found = read(fake)
    assert (found.instance_name, found.hostname) == {
        "gce": ("runner-1", "runner-1.c.ci-project.internal"),
        "aws": (None, None),
        "azure": ("runner-1", None),
    }[found.cloud]


def test_attributes_come_as_they_were_set(fake):
    fake.describe({"miglet-pool-id": "pool-1", "miglet-config": "org_id: ü\n"})
    attributes = read(fake).attributes
    assert attributes["miglet-pool-id"] == "pool-1"
    assert attributes["miglet-config"].rstrip() == "org_id: ü"


def test_nothing_of_it_is_in_its_repr(fake):
    fake.describe({"miglet-controller-token": "hunter2-hunter2"})
    assert "hunter2" not in repr(read(fake))


# Which cloud it is.


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
