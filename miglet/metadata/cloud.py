"""What every cloud offers, and what it is asked for: the words of this package.

The one rule: what a cloud's own file returns is checked text, whatever the server
behind it has answered.
"""

from __future__ import annotations

import importlib
import os
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from miglet.errors import UNAVAILABLE, Fault, MigletError, Misconfigured

#: Where each cloud's class is.
CLOUDS = {
    "gce": ("miglet.metadata.gce", "Gce"),
    "aws": ("miglet.metadata.aws", "Aws"),
    "azure": ("miglet.metadata.azure", "Azure"),
}


@dataclass(frozen=True)
class Metadata:
    """What the cloud knows of this machine; None is what it does not say."""

    cloud: str
    vm_id: str | None = None
    zone: str | None = None
    machine_type: str | None = None
    image: str | None = None
    instance_name: str | None = None
    #: The host name that the cloud gave the machine.
    hostname: str | None = None
    #: Attributes or tags; any may hold a secret.
    attributes: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: User data, where the cloud has it apart from the attributes.
    user_data: bytes | None = field(default=None, repr=False)


class Announcement(NamedTuple):
    """Something that the cloud says about this machine's end."""

    #: What tells it from another announcement of the same kind.
    content: str
    kind: str
    #: Wall time at which the machine ends; None: the cloud does not say.
    deadline: float | None
    source: str


class Cloud(Protocol):
    """A cloud's metadata server, spoken to in its own way.

    `deadline` is monotonic. Everything raises MetadataUnavailable.
    """

    #: Seconds from one look at the announcements to the next.
    period: float

    def metadata(self, deadline: float) -> Metadata:
        """Everything that a start needs."""

    def text(self, path: str, deadline: float) -> str | None:
        """One text, by an attribute's name or by its path; None: it is not there."""

    def announcements(self, seconds: float) -> Iterator[Announcement]:
        """All that stands now; a cloud that can wait for news does, for `seconds`."""

    def close(self) -> None:
        """Drop the connection."""


def cloud_called(name: str, environ: Mapping[str, str], limits: Limits) -> Cloud:
    """The cloud of that name, with the addresses that `environ` sets."""
    module, kind = CLOUDS[name]
    made = getattr(importlib.import_module(module), kind)
    return cast(Cloud, made(environ, limits))


class MetadataUnavailable(MigletError):
    """The metadata server gave no usable answer; it may later."""

    transient = True
    category = "infrastructure"
    exit_status = UNAVAILABLE
    hint = "is the metadata server enabled and reachable from this machine?"

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        #: Seconds that the server asked for, 1..300; None: it did not ask.
        self.retry_after = retry_after


class MetadataRefused(MetadataUnavailable):
    """The server answered, and will answer the same again."""

    transient = False


class MetadataForbidden(MetadataRefused):
    """403: this machine may not read metadata."""

    hint = "enable the instance metadata service for this machine"


#: Seconds that the first pause between two tries is at most; it doubles.
FIRST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Limits:
    """How often, and for how many seconds, a metadata server is asked."""

    #: One try, whole; a third of it may go into the connection.
    attempt_seconds: float = 3.0
    tries: int = 5
    shortest_pause_seconds: float = 0.2
    longest_pause_seconds: float = 2.0
    #: Everything that a start asks.
    overall_seconds: float = 20.0

    def deadline(self) -> float:
        """The monotonic time at which all of it has to be over, from now."""
        return time.monotonic() + self.overall_seconds

    def pause(self, failures: int) -> float:
        """Seconds until the next try, at random: a fleet boots together."""
        growing = FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1)
        most = min(self.longest_pause_seconds, growing)
        return random.uniform(self.shortest_pause_seconds, most)


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
