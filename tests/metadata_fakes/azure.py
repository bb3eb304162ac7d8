"""Azure's instance metadata service and its scheduled events.

Source: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
and .../linux/scheduled-events.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from tests.metadata_fakes.serving import Asked, Fake, Reply

VERSIONS = ("2021-02-01", "2021-01-01", "2020-09-01", "2020-07-01", "2019-08-01")

NAME = "runner-1"


def machine() -> dict[str, Any]:
    """What the service knows of the instance."""
    return {
        "compute": {
            "location": "westeurope",
            "name": NAME,
            "osType": "Linux",
            "storageProfile": {
                "imageReference": {
                    "id": "",
                    "offer": "debian-12",
                    "publisher": "Debian",
                    "sku": "12-gen2",
                    "version": "latest",
                }
            },
            "tags": "",
            "tagsList": [],
            "userData": "",
            "vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
            "vmSize": "Standard_D4s_v5",
            "zone": "1",
        },
        "network": {"interface": []},
    }


class FakeAzure(Fake):
    """The service of one machine."""

    variables = {"MIGLET_AZURE_METADATA_ENDPOINT": "{base}", "MIGLET_CLOUD": "azure"}
    marks = {"Server": "IMDS/150.870.65.1854"}

    def __init__(self, port: int = 0) -> None:
        self.tree = machine()
        self.events: list[dict[str, Any]] = []
        self.incarnation = 1
        super().__init__(port)

    def describe(self, attributes: Mapping[str, str]) -> None:
        """Set tags."""
        pairs = [{"name": name, "value": text} for name, text in attributes.items()]
        compute = self.tree["compute"]
        compute["tagsList"] += pairs
        listed = [f"{each['name']}:{each['value']}" for each in compute["tagsList"]]
        compute["tags"] = ";".join(listed)

    def set_user_data(self, content: bytes) -> None:
        """Set the user data, which the service gives out as base64."""
        self.tree["compute"]["userData"] = base64.b64encode(content).decode()

    def schedule(self, kind: str, not_before: str = "", **more: Any) -> None:
        """Announce an event; to this machine, unless `Resources` says otherwise."""
        event = {
            "EventId": f"602d9444-d2cd-49c7-8624-{len(self.events):012}",
            "EventStatus": "Scheduled",
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": [NAME],
            "NotBefore": not_before,
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        self.events.append(event | more)
        self.incarnation += 1

    def respond(self, asked: Asked) -> Reply:
        if asked.headers.get("Metadata") != "true":
            return wrong("Bad request. Required metadata header not specified")
        if "X-Forwarded-For" in asked.headers:
            return wrong("Bad request. X-Forwarded-For is not allowed")
        if asked.query.get("api-version") not in VERSIONS:
            reason = "Bad request. api-version is invalid or was not specified"
            return wrong(reason, **{"newest-versions": list(VERSIONS[:3])})
        if asked.path == "/metadata/scheduledevents":
            return json_reply(
                {"DocumentIncarnation": self.incarnation, "Events": self.events}
            )
        return self._instance(asked)

    def _instance(self, asked: Asked) -> Reply:
        root, _, place = asked.path.removeprefix("/metadata/").partition("/")
        found, node = lookup(self.tree, place.strip("/"))
        if root != "instance" or not found:
            return Reply(404, b'{"error": "Not found"}')
        if isinstance(node, dict | list):
            return json_reply(node)
        if asked.query.get("format") != "text":
            return wrong("Bad request. The leaf is only available as format=text")
        return Reply(200, str(node).encode(), {"Content-Type": "text/plain"})


def lookup(node: Any, path: str) -> tuple[bool, Any]:
    """Whether there is something at the path, and what; lists go by number."""
    for name in filter(None, path.split("/")):
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return False, None
    return True, node


def json_reply(tree: Any) -> Reply:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Reply(200, json.dumps(tree).encode(), kind)


def wrong(reason: str, **more: Any) -> Reply:
    return Reply(400, json.dumps({"error": reason, **more}).encode())
