"""Amazon EC2's instance metadata service, version 2.

Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html
and .../instancedata-data-categories.html.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from tests.metadata_fakes.serving import HTML, Asked, Fake, Reply

TOKEN_HEADER = "X-aws-ec2-metadata-token"
LIFE_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
LONGEST_LIFE = 21600

#: The machine's role and its credentials, none of them real.
ROLE = "runner-role"
CREDENTIALS = {
    "Code": "Success",
    "LastUpdated": "2026-01-15T10:00:00Z",
    "Type": "AWS-HMAC",
    "AccessKeyId": "ASIAFAKEFAKEFAKEFAKE",
    "SecretAccessKey": "fake-secret-access-key",
    "Token": "fake-session-token",
    "Expiration": "2099-01-15T16:00:00Z",
}

DOCUMENT = {
    "accountId": "123456789012",
    "architecture": "x86_64",
    "availabilityZone": "eu-central-1a",
    "imageId": "ami-0123456789abcdef0",
    "instanceId": "i-0abcdef1234567890",
    "instanceType": "m6i.xlarge",
    "privateIp": "10.0.0.7",
    "region": "eu-central-1",
    "version": "2017-09-30",
}


def machine() -> dict[str, Any]:
    """What the service knows, by the names of its paths below ``/latest``."""
    return {
        "dynamic": {"instance-identity": {"document": json.dumps(DOCUMENT)}},
        "meta-data": {
            "ami-id": DOCUMENT["imageId"],
            "autoscaling": {"target-lifecycle-state": "InService"},
            "iam": {"security-credentials": {ROLE: json.dumps(CREDENTIALS)}},
            "instance-id": DOCUMENT["instanceId"],
            "instance-type": DOCUMENT["instanceType"],
            "placement": {"availability-zone": "eu-central-1a"},
        },
    }


class FakeAws(Fake):
    """The service of one machine."""

    variables = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "{base}", "MIGLET_CLOUD": "aws"}
    marks = {"Server": "EC2ws"}

    def __init__(self, port: int = 0) -> None:
        self.tree = machine()
        #: Whether instance metadata is enabled at all.
        self.enabled = True
        #: Token to the monotonic time at which it expires.
        self.tokens: dict[str, float] = {}
        super().__init__(port)

    def describe(self, attributes: Mapping[str, str]) -> None:
        """Set tags, and allow them to be read."""
        for name, text in attributes.items():
            self.change(f"meta-data/tags/instance/{name}", text)

    def change(self, path: str, value: Any) -> None:
        """Set what is at a path below ``/latest``; None removes it."""
        *folders, name = path.split("/")
        node = self.tree
        for folder in folders:
            node = node.setdefault(folder, {})
        if value is None:
            node.pop(name, None)
        else:
            node[name] = value

    def forget_tokens(self) -> None:
        """Let every token given out so far have expired."""
        self.tokens.clear()

    def respond(self, asked: Asked) -> Reply:
        if not self.enabled or "X-Forwarded-For" in asked.headers:
            return Reply(403, HTML)
        if asked.path == "/latest/api/token":
            return self._token(asked) if asked.method == "PUT" else Reply(405)
        if not self._allowed(asked):
            return Reply(401, HTML)
        found, node = self._lookup(asked.path)
        return Reply(200, written(node)) if found else Reply(404, HTML)

    def _token(self, asked: Asked) -> Reply:
        text = asked.headers.get(LIFE_HEADER, "")
        if not text.isdigit() or not 1 <= int(text) <= LONGEST_LIFE:
            return Reply(400, HTML)
        token = secrets.token_urlsafe(40) + "=="
        self.tokens[token] = time.monotonic() + int(text)
        return Reply(200, token.encode(), {LIFE_HEADER: text})

    def _allowed(self, asked: Asked) -> bool:
        given = asked.headers.get_all(TOKEN_HEADER) or []
        return len(given) == 1 and self.tokens.get(given[0], 0.0) > time.monotonic()

    def _lookup(self, path: str) -> tuple[bool, Any]:
        version, *names = filter(None, path.split("/"))
        node: Any = self.tree
        if version != "latest":
            return False, None
        for name in names:
            if not isinstance(node, dict) or name not in node:
                return False, None
            node = node[name]
        return True, node


def written(node: Any) -> bytes:
    """A folder as the list of its names, a leaf as it is."""
    if isinstance(node, dict):
        names = [f"{name}/" if is_folder(node, name) else name for name in node]
        return "\n".join(names).encode()
    return node if isinstance(node, bytes) else str(node).encode()


def is_folder(node: Mapping[str, Any], name: str) -> bool:
    return isinstance(node[name], dict)
