"""Google Compute Engine's metadata server.

By its address, because name resolution is one more thing that can fail. The one
rule: an answer without ``Metadata-Flavor: Google`` is somebody else's
(https://cloud.google.com/compute/docs/metadata/querying-metadata).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from miglet.metadata.attempts import LATER, MetadataRefused, MetadataUnavailable
from miglet.metadata.cloud import (
    Announcement,
    Cloud,
    Firmware,
    Metadata,
    last_part,
    text_in,
)

if TYPE_CHECKING:
    from miglet.http.transport import Answer
    from miglet.metadata.server import Server

#: All of a folder at once, as JSON.
WHOLE = {"recursive": "true", "alt": "json"}

#: Seconds that an answer to a long poll may come late.
POLL_GRACE_SECONDS = 1.0

#: Seconds until the next poll: after news, after a wait without, and when the server
#: answers at once without any.
AFTER_NEWS, AFTER_WAITING, AFTER_NOTHING = 0.1, 0.0, 1.0

#: Seconds that a preempted machine is given
#: (https://cloud.google.com/compute/docs/instances/preemptible).
PREEMPTION_SECONDS = 30.0

#: Seconds between the announcement of a maintenance that ends the machine and its end
#: (https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice).
MAINTENANCE_SECONDS = 60.0


class Gce(Cloud):
    """A machine at Google."""

    name = "gce"
    #: Google's own libraries take the server's host and port from it.
    endpoint_variable = "GCE_METADATA_HOST"
    endpoint = "169.254.169.254"
    headers: ClassVar = {"Metadata-Flavor": "Google"}
    addresses = ("169.254.169.254", "fd20:ce::254")
    host_names = ("metadata.google.internal",)
    period = AFTER_WAITING

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._etag = "NONE"

    @classmethod
    def is_described_by(cls, firmware: Firmware) -> bool:
        """The product's name is not always set (cloud-init DataSourceGCE.py)."""
        if firmware.field("product_name") in ("Google Compute Engine", "Google"):
            return True
        return firmware.field("product_serial").startswith("GoogleCloud-")

    @classmethod
    def base_url(cls, endpoint: str) -> str:
        return f"http://{endpoint}/computeMetadata/v1/"

    def metadata(self, deadline: float) -> Metadata:
        """The instance, and its attributes over those of the project."""
        instance = self._folder("instance/", deadline)
        project = self._folder("project/attributes/", deadline, needed=False)
        own = self._object(instance.get("attributes"), "instance/attributes/")
        return Metadata(
            cloud=self.name,
            vm_id=text_in(instance, "id"),
            zone=last_part(text_in(instance, "zone")),
            machine_type=last_part(text_in(instance, "machineType")),
            image=text_in(instance, "image"),
            instance_name=text_in(instance, "name"),
            hostname=text_in(instance, "hostname"),
            attributes=self._texts({**project, **own}),
        )

    def text(self, path: str, deadline: float) -> str | None:
        """An attribute's text, or what is at a path below ``/computeMetadata/v1/``."""
        place = path if "/" in path else f"instance/attributes/{path}"
        body = self._persistently(place, {"alt": "text"}, deadline)
        return None if body is None else body.decode("utf-8", errors="replace")

    def announcements(self, seconds: float) -> Iterator[Announcement]:
        """What stands now; waits for a change of anything about the instance."""
        began = time.monotonic()
        instance = self._awaited(began + seconds, int(seconds - POLL_GRACE_SECONDS))
        at = time.time()
        if text_in(instance, "preempted") == "TRUE":
            until = at + PREEMPTION_SECONDS
            yield Announcement("", "preempted", until, "gce instance/preempted")
        event = text_in(instance, "maintenanceEvent") or ""
        if event.startswith("TERMINATE"):
            until = at + MAINTENANCE_SECONDS
            source = "gce instance/maintenance-event"
            yield Announcement(event, "maintenance_event", until, source)

    def _awaited(self, deadline: float, wait: int) -> dict[str, Any]:
        """The instance, when it is no longer what it was, or after `wait` seconds."""
        params = dict(WHOLE)
        if wait > 0:
            params |= {"wait_for_change": "true", "last_etag": self._etag}
            params["timeout_sec"] = str(wait)
        began = time.monotonic()
        answer = self._genuine("instance/", params, deadline)
        body = self._server.judged(answer, "instance/")
        etag = answer.headers.get("ETag") or "NONE"
        waited = time.monotonic() - began >= min(wait, AFTER_NOTHING)
        silent = AFTER_WAITING if wait > 0 and waited else AFTER_NOTHING
        self.period = AFTER_NEWS if etag != self._etag else silent
        self._etag = etag
        needed = self._server.required(body, "instance/")
        return self._server.tree(needed, "instance/")

    def _folder(
        self, path: str, deadline: float, needed: bool = True
    ) -> dict[str, Any]:
        body = self._persistently(path, WHOLE, deadline)
        if body is None and not needed:
            return {}
        return self._server.tree(self._server.required(body, path), path)

    def _persistently(
        self, path: str, params: Mapping[str, str], deadline: float
    ) -> bytes | None:
        def attempt() -> bytes | None:
            return self._server.judged(self._genuine(path, params, deadline), path)

        return self._server.persistently(attempt, deadline)

    def _genuine(self, path: str, params: Mapping[str, str], deadline: float) -> Answer:
        """An answer that shows Google's flavour, or that says no by itself."""
        answer = self._server.ask(path, deadline, params)
        later = answer.status in LATER or answer.status >= 500
        redirect = answer.status // 100 == 3
        if later or redirect or answer.headers.get("Metadata-Flavor") == "Google":
            return answer
        raise self._foreign(answer, path)

    def _foreign(self, answer: Answer, path: str) -> MetadataUnavailable:
        if answer.status == HTTPStatus.FORBIDDEN:
            return self._server.error_for(answer, path)
        return MetadataRefused(
            f"{self._server.host}: /{path}: {answer.status} without Metadata-Flavor:"
            " Google: something else answers at this address"
        )

    def _object(self, node: Any, path: str) -> dict[str, Any]:
        if isinstance(node, dict):
            return node
        if node is None:
            return {}
        raise MetadataRefused(f"{self._server.host}: /{path}: expected an object")

    def _texts(self, attributes: Mapping[str, Any]) -> dict[str, str]:
        """The attributes, all of them text; raises MetadataRefused naming one."""
        for name, value in attributes.items():
            if not isinstance(value, str):
                reason = f"attribute {name[:80]!r}: expected text"
                raise MetadataRefused(f"{self._server.host}: {reason}")
        return dict(attributes)
