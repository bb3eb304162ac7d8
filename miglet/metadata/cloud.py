"""What every cloud offers, and what it is asked for: the words of this package.

A cloud is one class derived from `Cloud`, in a module of its own, and one entry of
`clouds.CLOUDS`. The one rule: what it returns is checked text, whatever the server
behind it has answered. Nothing here imports the HTTP libraries: most processes only
want to know which cloud this is.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from miglet.messages.codec import Value, frozen_value

if TYPE_CHECKING:
    from miglet.metadata.server import Server

#: A field of the firmware's description is a line.
LONGEST_FIELD_BYTES = 256

#: The most that is taken of an identity; real ones are far shorter.
LONGEST_NAME = 1024


@frozen_value
class Metadata(Value):
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


class Firmware(NamedTuple):
    """What the machine's firmware and hypervisor say of it, as files."""

    #: The fields of DMI, ``/sys/class/dmi/id``.
    folder: Path
    #: Xen's, ``/sys/hypervisor/uuid``.
    hypervisor: Path

    def field(self, name: str) -> str:
        """A field of DMI, e.g. ``sys_vendor``; empty if it is missing or unset."""
        return field_in(self.folder / name)

    def hypervisor_uuid(self) -> str:
        """The id that Xen gave the machine; empty elsewhere."""
        return field_in(self.hypervisor)


def field_in(path: Path) -> str:
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


class Cloud(abc.ABC):
    """A cloud: how it is recognised, where its metadata is, and how that is read.

    `deadline` is monotonic. Everything that asks raises MetadataUnavailable.
    """

    #: What the cloud is called in settings, events and messages.
    name: ClassVar[str]
    #: The variable that names another metadata server, e.g. a test's. One of ours is
    #: called ``MIGLET_*_METADATA_ENDPOINT``, which no setting is.
    endpoint_variable: ClassVar[str]
    #: What is taken for that variable where it is not set.
    endpoint: ClassVar[str] = "http://169.254.169.254"
    #: Headers that every request has to have.
    headers: ClassVar[Mapping[str, str]] = {}
    #: Every address that serves metadata: jobs can be kept from them, and none of them
    #: is behind a proxy.
    addresses: ClassVar[tuple[str, ...]] = ("169.254.169.254",)
    #: Names by which jobs may know the first of these addresses.
    host_names: ClassVar[tuple[str, ...]] = ()

    #: Seconds from one look at the announcements to the next.
    period: float = 5.0

    def __init__(self, server: Server) -> None:
        self._server = server

    @classmethod
    @abc.abstractmethod
    def is_described_by(cls, firmware: Firmware) -> bool:
        """Whether a machine with that firmware is in this cloud."""

    @classmethod
    @abc.abstractmethod
    def base_url(cls, endpoint: str) -> str:
        """The URL below which all metadata is, on the server at `endpoint`."""

    @abc.abstractmethod
    def metadata(self, deadline: float) -> Metadata:
        """Everything that a start needs."""

    @abc.abstractmethod
    def text(self, path: str, deadline: float) -> str | None:
        """One text, by an attribute's name or by its path; None: it is not there."""

    @abc.abstractmethod
    def announcements(self, seconds: float) -> Iterator[Announcement]:
        """All that stands now; a cloud that can wait for news does, for `seconds`."""

    def close(self) -> None:
        """Drop the connection."""
        self._server.close()


def text_in(tree: Mapping[str, Any], *path: str) -> str | None:
    """The name or number at `path` in `tree`; None if it is not there or empty."""
    node: Any = tree
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    if isinstance(node, bool) or not isinstance(node, (str, int)):
        return None
    return str(node)[:LONGEST_NAME] or None


def last_part(path: str | None) -> str | None:
    """The last segment of ``projects/1/zones/Z``, the way people call it."""
    return path.rpartition("/")[2] if path else None
