"""Amazon EC2's instance metadata service, version 2 only.

Every answer needs a token that only a machine's own PUT gets. The one rule: there is
no way back to version 1, whatever the server says
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from miglet.config.schema import ATTRIBUTE_PREFIX
from miglet.formats import is_printable_word, parse_rfc3339
from miglet.metadata.attempts import MetadataRefused
from miglet.metadata.cloud import Announcement, Cloud, Firmware, Metadata, text_in
from miglet.redaction import remember_secret

if TYPE_CHECKING:
    from miglet.http.transport import Answer
    from miglet.metadata.server import Server

TOKEN = "api/token"
TOKEN_HEADER = "X-aws-ec2-metadata-token"
LIFE_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"

#: Seconds that a token is to live: the most that there is.
TOKEN_SECONDS = "21600"

LONGEST_TOKEN = 1024

DOCUMENT = "dynamic/instance-identity/document"
TAGS = "meta-data/tags/instance"
USER_DATA = "user-data"

SPOT = "meta-data/spot/instance-action"
LIFECYCLE = "meta-data/autoscaling/target-lifecycle-state"
REBALANCE = "meta-data/events/recommendations/rebalance"

#: Auto-scaling states at whose end there is no machine.
ENDING = {"Terminated", "Warmed:Terminated"}


class Aws(Cloud):
    """A machine at Amazon."""

    name = "aws"
    #: Amazon's own libraries take the server's address from it.
    endpoint_variable = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    addresses = ("169.254.169.254", "fd00:ec2::254")
    #: Amazon's own advice for the spot notice.
    period = 5.0

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._token = ""

    @classmethod
    def is_described_by(cls, firmware: Firmware) -> bool:
        """Nitro names the vendor, Xen has telling ids (cloud-init DataSourceEc2.py)."""
        return (
            firmware.field("sys_vendor") == "Amazon EC2"
            or firmware.hypervisor_uuid().lower().startswith("ec2")
            or is_ec2_id(firmware.field("product_uuid"))
        )

    @classmethod
    def base_url(cls, endpoint: str) -> str:
        return f"{endpoint.rstrip('/')}/latest/"

    def metadata(self, deadline: float) -> Metadata:
        """The identity document, the tags that are ours, and the user data."""
        body = self._server.required(self._body(DOCUMENT, deadline), DOCUMENT)
        document = self._server.tree(body, DOCUMENT)
        return Metadata(
            cloud=self.name,
            vm_id=text_in(document, "instanceId"),
            zone=text_in(document, "availabilityZone"),
            machine_type=text_in(document, "instanceType"),
            image=text_in(document, "imageId"),
            attributes=self._tags(deadline),
            user_data=self._body(USER_DATA, deadline),
        )

    def text(self, path: str, deadline: float) -> str | None:
        """A tag's text, or what is at a path below ``/latest/``."""
        place = path if "/" in path else f"{TAGS}/{path}"
        body = self._body(place, deadline)
        return None if body is None else decoded(body)

    def announcements(self, seconds: float) -> Iterator[Announcement]:
        """What stands now; 404 is the usual answer to all three questions."""
        deadline = time.monotonic() + seconds
        action = self._text(SPOT, deadline)
        if action:
            yield self._spot(action)
        state = self._text(LIFECYCLE, deadline)
        if state in ENDING:
            yield Announcement(
                state, "autoscaling_termination", None, f"aws {LIFECYCLE}"
            )
        advice = self._text(REBALANCE, deadline)
        if advice:
            source = f"aws {REBALANCE}"
            yield Announcement(advice, "rebalance_recommendation", None, source)

    def _spot(self, action: str) -> Announcement:
        tree: dict[str, Any] = self._server.tree(action.encode(), SPOT)
        until = parse_rfc3339(text_in(tree, "time") or "")
        return Announcement(action, "spot_instance_action", until, f"aws {SPOT}")

    def _tags(self, deadline: float) -> dict[str, str]:
        """The tags that are ours; none where the machine may not read its tags."""
        names = (self._text(TAGS, deadline) or "").split("\n")
        ours = [each for each in map(str.strip, names) if is_ours(each)]
        texts = {each: self._text(f"{TAGS}/{quote(each)}", deadline) for each in ours}
        return {name: text for name, text in texts.items() if text is not None}

    def _text(self, path: str, deadline: float) -> str | None:
        body = self._body(path, deadline)
        return None if body is None else decoded(body).strip()

    def _body(self, path: str, deadline: float) -> bytes | None:
        return self._server.persistently(
            lambda: self._server.judged(self._authorised(path, deadline), path),
            deadline,
        )

    def _authorised(self, path: str, deadline: float) -> Answer:
        """The answer to a valid token; a token that has expired is replaced once."""
        answer = self._with_token(path, deadline)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self._token = ""
            answer = self._with_token(path, deadline)
        return answer

    def _with_token(self, path: str, deadline: float) -> Answer:
        self._token = self._token or self._new_token(deadline)
        return self._server.ask(path, deadline, headers={TOKEN_HEADER: self._token})

    def _new_token(self, deadline: float) -> str:
        life = {LIFE_HEADER: TOKEN_SECONDS}
        answer = self._server.ask(TOKEN, deadline, headers=life, method="PUT")
        body = self._server.judged(answer, TOKEN)
        token = decoded(self._server.required(body, TOKEN)).strip()
        genuine = LIFE_HEADER in answer.headers and len(token) <= LONGEST_TOKEN
        if not genuine or not is_printable_word(token):
            raise MetadataRefused(
                f"{self._server.host}: /{TOKEN}: no token came with {LIFE_HEADER}:"
                " something else answers at this address"
            )
        remember_secret(token)
        return token


def is_ec2_id(text: str) -> bool:
    """Whether a product's id begins with EC2, as it is or with its bytes swapped."""
    try:
        swapped = uuid.UUID(text).bytes_le.hex()
    except ValueError:
        swapped = ""
    return text.lower().startswith("ec2") or swapped.startswith("ec2")


def is_ours(name: str) -> bool:
    """Whether a tag's name is one of MIGlet's, in any spelling."""
    return name.lower().replace("_", "-").startswith(ATTRIBUTE_PREFIX)


def decoded(body: bytes) -> str:
    """The text of an answer."""
    return body.decode("utf-8", errors="replace")
