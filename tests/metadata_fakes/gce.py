"""Google Compute Engine's metadata server.

Source: https://cloud.google.com/compute/docs/metadata/querying-metadata and
.../default-metadata-values, .../get-notified (waiting for change).
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from tests.metadata_fakes.serving import HTML, Asked, Fake, Reply

ROOT = "/computeMetadata/v1"

SERVICE_ACCOUNT = "1234-compute@developer.gserviceaccount.com"


def machine() -> dict[str, Any]:
    """What the server knows, by the names of its paths."""
    return {
        "instance": {
            "attributes": {},
            "hostname": "runner-1.c.ci-project.internal",
            "id": 4520031799277581759,
            "image": "projects/ci-project/global/images/golden-7",
            "machine-type": "projects/1234/machineTypes/e2-standard-4",
            "maintenance-event": "NONE",
            "name": "runner-1",
            "preempted": "FALSE",
            "scheduling": {"automatic-restart": "FALSE", "preemptible": "TRUE"},
            "service-accounts": {
                "default": {
                    "aliases": ["default"],
                    "email": SERVICE_ACCOUNT,
                    "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
                }
            },
            "zone": "projects/1234/zones/europe-west1-b",
        },
        "project": {
            "attributes": {},
            "numeric-project-id": 1234,
            "project-id": "ci-project",
        },
    }


class FakeGce(Fake):
    """The server of one machine; `change` is what somebody does to the machine."""

    variables = {
        "GCE_METADATA_HOST": "{host}",
        "GCE_METADATA_IP": "{host}",
        "MIGLET_CLOUD": "gce",
    }
    marks = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}

    def __init__(self, port: int = 0) -> None:
        self.tree = machine()
        super().__init__(port)

    def describe(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the instance."""
        for name, text in attributes.items():
            self.change(f"instance/attributes/{name}", text)

    def change(self, path: str, value: Any) -> None:
        """Set what is at a path, and wake those who wait for it."""
        *folders, name = path.split("/")
        with self.changed:
            node = self.tree
            for folder in folders:
                node = node[folder]
            node[name] = value
            self.changed.notify_all()

    def respond(self, asked: Asked) -> Reply:
        if asked.path == "/":
            return Reply(200, b"computeMetadata/\n")
        refusal = self._refusal(asked)
        if refusal:
            return refusal
        path = asked.path[len(ROOT) :].strip("/")
        if path.endswith("/token"):
            return self._access_token()
        if path.endswith("/identity"):
            return self._identity(asked)
        try:
            return self._found(asked, path)
        except ValueError as error:
            return Reply(400, str(error).encode())

    def _refusal(self, asked: Asked) -> Reply | None:
        flavour = asked.headers.get("Metadata-Flavor")
        if flavour != "Google" or "X-Forwarded-For" in asked.headers:
            return Reply(403, HTML)
        return None if asked.path.startswith(ROOT) else Reply(404, HTML)

    def _found(self, asked: Asked, path: str) -> Reply:
        found, node = lookup(self.tree, path)
        if not found:
            return Reply(404, HTML)
        if isinstance(node, dict) and not asked.path.endswith("/"):
            return Reply(301, b"", {"Location": f"{self.base}{asked.path}/"})
        if asked.query.get("wait_for_change") == "true":
            self._wait(path, asked.query)
        _, node = lookup(self.tree, path)
        body = shown(node, asked.query, path.endswith("attributes"))
        kind = "application/json" if is_json(node, asked.query) else "application/text"
        return Reply(200, body, {"ETag": etag(node), "Content-Type": kind})

    def _wait(self, path: str, query: Mapping[str, str]) -> None:
        """Until the node is no longer what it was, or the time is up."""
        before = query.get("last_etag") or etag(lookup(self.tree, path)[1])
        limit = time.monotonic() + float(query.get("timeout_sec", "3600"))
        with self.changed:
            while etag(lookup(self.tree, path)[1]) == before and not self.closed:
                left = limit - time.monotonic()
                if left <= 0 or before == "NONE":
                    return
                self.changed.wait(left)

    def _access_token(self) -> Reply:
        token = {"access_token": "ya29.fake", "expires_in": 3599}
        return json_reply({**token, "token_type": "Bearer"})

    def _identity(self, asked: Asked) -> Reply:
        """The machine's JWT, with a signature that nobody should trust."""
        audience = asked.query.get("audience")
        if not audience:
            return Reply(400, b"non-empty audience parameter required")
        now = int(time.time())
        claims = {"aud": audience, "iat": now, "exp": now + 3600}
        claims |= {"iss": "https://accounts.google.com", "sub": "1234"}
        parts = [{"alg": "RS256", "typ": "JWT"}, claims]
        words = [base64url(json.dumps(each).encode()) for each in parts]
        token = ".".join([*words, base64url(b"signature")])
        return Reply(200, token.encode(), {"Content-Type": "text/html"})


def lookup(tree: Any, path: str) -> tuple[bool, Any]:
    """Whether there is something at the path, and what."""
    for name in filter(None, path.split("/")):
        if not isinstance(tree, dict) or name not in tree:
            return False, None
        tree = tree[name]
    return True, tree


def is_json(node: Any, query: Mapping[str, str]) -> bool:
    """A folder is JSON when all of it is asked for, a leaf when JSON is."""
    recursive = isinstance(node, dict) and query.get("recursive") == "true"
    return query.get("alt", "json" if recursive else "text") == "json"


def shown(node: Any, query: Mapping[str, str], as_set: bool) -> bytes:
    """A node as the server writes it; names that people have set stay `as_set`."""
    if query.get("alt", "text") not in ("text", "json"):
        raise ValueError("Invalid value for alt")
    if is_json(node, query):
        return json.dumps(node if as_set else camelled(node)).encode()
    if isinstance(node, dict):
        names = [f"{name}/" if is_folder(each) else name for name, each in node.items()]
        return "".join(f"{name}\n" for name in names).encode()
    return ("\n".join(node) if isinstance(node, list) else str(node)).encode()


def is_folder(node: Any) -> bool:
    return isinstance(node, dict)


def camelled(node: Any) -> Any:
    """JSON has `machineType` where the path has `machine-type`."""
    if not isinstance(node, dict):
        return node
    return {
        camel(name): each if name == "attributes" else camelled(each)
        for name, each in node.items()
    }


def camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(each.capitalize() for each in rest)


def etag(node: Any) -> str:
    return hashlib.sha256(json.dumps(node, sort_keys=True).encode()).hexdigest()[:16]


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def json_reply(tree: Any) -> Reply:
    return Reply(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
