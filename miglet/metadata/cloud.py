"""What every cloud offers, and what it is asked for: the words of this package.

The one rule: what a cloud's own file returns is checked text, whatever the server
behind it has answered.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast

from miglet.metadata.limits import Limits

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
