"""Azure's instance metadata service.

One document tells all; tags and user data may hold settings. The one rule: requests
go straight, say ``Metadata: true`` and name the version that they were written for
(https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service).
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from miglet.formats import parse_http_date
from miglet.metadata.attempts import MetadataRefused
from miglet.metadata.cloud import Announcement, Cloud, Firmware, Metadata, text_in

if TYPE_CHECKING:
    from miglet.metadata.server import Server

#: Azure's mark on every chassis (cloud-init DataSourceAzure.py).
CHASSIS = "7783-7084-3265-9085-8269-3286-77"

#: The first version that has tags as a list, and the user data.
VERSION = "2021-02-01"
EVENTS_VERSION = "2020-07-01"

INSTANCE = "instance"
NAME = "instance/compute/name"
EVENTS = "scheduledevents"

#: Kinds of scheduled events that a running job does not survive; a machine that is
#: frozen for seconds goes on.
ENDING = {"Preempt", "Terminate", "Reboot", "Redeploy"}


class Azure(Cloud):
    """A machine at Microsoft."""

    name = "azure"
    #: No variable of Microsoft's is commonly known; this one is ours.
    endpoint_variable = "MIGLET_AZURE_METADATA_ENDPOINT"
    headers: ClassVar = {"Metadata": "true"}
    #: The second is the one that Azure's own agents ask.
    addresses = ("169.254.169.254", "168.63.129.16")

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._name: str | None = None

    @classmethod
    def is_described_by(cls, firmware: Firmware) -> bool:
        return firmware.field("chassis_asset_tag") == CHASSIS

    @classmethod
    def base_url(cls, endpoint: str) -> str:
        return f"{endpoint.rstrip('/')}/metadata/"

    def metadata(self, deadline: float) -> Metadata:
        """The machine's own document."""
        compute = self._compute(deadline)
        return Metadata(
            cloud=self.name,
            vm_id=text_in(compute, "vmId"),
            zone=zone_of(compute),
            machine_type=text_in(compute, "vmSize"),
            image=image_of(compute),
            instance_name=text_in(compute, "name"),
            attributes=tags_of(compute),
            user_data=self._user_data(compute.get("userData")),
        )

    def text(self, path: str, deadline: float) -> str | None:
        """A tag's text, or what is at a path below ``/metadata/``."""
        if "/" not in path:
            return tags_of(self._compute(deadline)).get(path)
        params = {"api-version": VERSION, "format": "text"}
        body = self._body(path, params, deadline)
        return None if body is None else body.decode("utf-8", errors="replace")

    def announcements(self, seconds: float) -> Iterator[Announcement]:
        """The scheduled events of this very machine.

        The first question may take minutes to be answered, and switches them on.
        """
        deadline = time.monotonic() + seconds
        if self._name is None:
            name = self.text(NAME, deadline)
            self._name = self._server.required(name, NAME).strip()
        body = self._body(EVENTS, {"api-version": EVENTS_VERSION}, deadline)
        tree = self._server.tree(self._server.required(body, EVENTS), EVENTS)
        events = tree.get("Events")
        for event in events if isinstance(events, list) else []:
            if isinstance(event, dict) and concerns(event, self._name):
                yield announcement(event)

    def _compute(self, deadline: float) -> dict[str, Any]:
        body = self._body(INSTANCE, {"api-version": VERSION}, deadline)
        tree = self._server.tree(self._server.required(body, INSTANCE), INSTANCE)
        compute = tree.get("compute")
        if not isinstance(compute, dict):
            reason = "expected an object with an object `compute`"
            raise MetadataRefused(f"{self._server.host}: /{INSTANCE}: {reason}")
        return compute

    def _body(
        self, path: str, params: Mapping[str, str], deadline: float
    ) -> bytes | None:
        def attempt() -> bytes | None:
            return self._server.judged(self._server.ask(path, deadline, params), path)

        return self._server.persistently(attempt, deadline)

    def _user_data(self, text: Any) -> bytes | None:
        """The user data, which the document carries as base64."""
        if not text:
            return None
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            reason = "compute.userData: expected base64"
            raise MetadataRefused(f"{self._server.host}: {reason}") from None


def zone_of(compute: Mapping[str, Any]) -> str | None:
    """The region and, where the machine is in one, the zone: ``westeurope-1``."""
    parts = (text_in(compute, "location"), text_in(compute, "zone"))
    return "-".join(each for each in parts if each) or None


def image_of(compute: Mapping[str, Any]) -> str | None:
    """The image's resource id, or what a public one is published as."""
    place = ("storageProfile", "imageReference")
    parts = [
        text_in(compute, *place, each)
        for each in ("publisher", "offer", "sku", "version")
    ]
    public = ":".join(each for each in parts if each)
    return text_in(compute, *place, "id") or public or None


def tags_of(compute: Mapping[str, Any]) -> dict[str, str]:
    """The machine's tags; what is none is left out."""
    listed = compute.get("tagsList")
    entries = listed if isinstance(listed, list) else []
    pairs = [each for each in entries if isinstance(each, dict)]
    return {
        each["name"]: each["value"]
        for each in pairs
        if isinstance(each.get("name"), str) and isinstance(each.get("value"), str)
    }


def concerns(event: Mapping[str, Any], name: str) -> bool:
    """Whether this event ends the machine of that name."""
    resources = event.get("Resources")
    ours = isinstance(resources, list) and name in resources
    return ours and text_in(event, "EventType") in ENDING


def announcement(event: Mapping[str, Any]) -> Announcement:
    """What a scheduled event means to us; one that has begun ends the machine now."""
    kind = f"scheduled_{event['EventType'].lower()}"
    begun = event.get("EventStatus") == "Started"
    until = time.time() if begun else parse_http_date(text_in(event, "NotBefore"))
    identity = f"{text_in(event, 'EventId')} {text_in(event, 'NotBefore')}"
    return Announcement(identity, kind, until, f"azure {EVENTS}")
