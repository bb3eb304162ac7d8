"""Which cloud this machine belongs to, by its firmware's description (DMI).

Only files are read: on a machine without a cloud nothing is delayed, and no unknown
network is ever asked for 169.254.169.254.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from miglet.errors import Fault, Misconfigured

#: Says which cloud it is, or ``none``, without a look at any file.
CLOUD_VARIABLE = "MIGLET_CLOUD"

#: Names another folder in the place of ``/sys/class/dmi/id``. A file
#: ``hypervisor_uuid`` in it stands for ``/sys/hypervisor/uuid``.
ROOT_VARIABLE = "MIGLET_DMI_ROOT"

ROOT = Path("/sys/class/dmi/id")
HYPERVISOR = Path("/sys/hypervisor/uuid")

NONE = "none"
NAMES = ("gce", "aws", "azure")

#: Azure's mark on every chassis (cloud-init DataSourceAzure.py).
AZURE_CHASSIS = "7783-7084-3265-9085-8269-3286-77"

#: A field of the description is a line.
LONGEST_FIELD_BYTES = 256


def cloud_name(environ: Mapping[str, str]) -> str | None:
    """The cloud's name; None where there is none. Raises Misconfigured.

    Some of the files are root's alone: another user may see less.
    """
    said = environ.get(CLOUD_VARIABLE, "").strip().lower()
    if not said:
        return described(environ.get(ROOT_VARIABLE))
    if said not in (*NAMES, NONE):
        reason = f"expected one of {', '.join((*NAMES, NONE))}; found {said[:60]!r}"
        raise Misconfigured([Fault("", f"environment {CLOUD_VARIABLE}", reason)])
    return None if said == NONE else said


def described(root: str | None) -> str | None:
    """The cloud that the files below `root` describe; None: those of this machine."""
    folder = Path(root) if root else ROOT
    if is_gce(folder):
        return "gce"
    if is_aws(folder, folder / "hypervisor_uuid" if root else HYPERVISOR):
        return "aws"
    return "azure" if dmi_field(folder / "chassis_asset_tag") == AZURE_CHASSIS else None


def is_gce(folder: Path) -> bool:
    """The product's name is not always set (cloud-init DataSourceGCE.py)."""
    if dmi_field(folder / "product_name") in ("Google Compute Engine", "Google"):
        return True
    return dmi_field(folder / "product_serial").startswith("GoogleCloud-")


def is_aws(folder: Path, hypervisor: Path) -> bool:
    """Nitro names the vendor, Xen has telling ids (cloud-init DataSourceEc2.py)."""
    if dmi_field(folder / "sys_vendor") == "Amazon EC2":
        return True
    return dmi_field(hypervisor).lower().startswith("ec2") or is_ec2_id(
        dmi_field(folder / "product_uuid")
    )


def is_ec2_id(text: str) -> bool:
    """Whether a product's id begins with EC2, as it is or with its bytes swapped."""
    try:
        swapped = uuid.UUID(text).bytes_le.hex()
    except ValueError:
        swapped = ""
    return text.lower().startswith("ec2") or swapped.startswith("ec2")


def dmi_field(path: Path) -> str:
    """What the file at `path` says; empty if it cannot be read or was never set.

    Fields that no firmware has set are all ones.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            content = stream.read(LONGEST_FIELD_BYTES)
    except OSError:
        return ""
    return content.strip(b"\xff\0 \t\r\n").decode("ascii", errors="replace")
