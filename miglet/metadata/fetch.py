"""Reads the metadata in a child of its own, which is not root.

What a metadata server sends is a stranger's bytes as long as nobody has looked at them:
the process that speaks HTTP becomes the user of child tasks first, and hands over the
few texts that are MIGlet's business. The caller, which may be root, gets nothing else.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain

from miglet.config.schema import ATTRIBUTE_PREFIX
from miglet.formats import strict_json
from miglet.messages.codec import Fact
from miglet.metadata.attempts import Limits, MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.clouds import open_cloud
from miglet.supervisor import privileges
from miglet.supervisor.children import ChildTask, RunningTask
from miglet.supervisor.queues import Queue

#: The first line of user data that is our document as a whole, and of user data
#: (https://cloudinit.readthedocs.io/) in which a section may be ours.
OURS, CLOUD_INIT = "#miglet-config", "#cloud-config"

#: Most characters that our part of the metadata may have.
OURS_AT_MOST = 1024 * 1024

#: Characters of one message: a queue takes 64 KiB, a character has up to four bytes.
PART_CHARACTERS = 12_000

#: Seconds on top of what reading may take after which the child counts as hung.
MARGIN_SECONDS = 2.0


@dataclass(frozen=True, repr=False, eq=False)
class MetadataPart(Fact):
    """The next part of the text that describes the metadata."""

    text: str = field(repr=False)


@dataclass(frozen=True, repr=False, eq=False)
class MetadataRead(Fact):
    """All parts were sent, or `trouble` says why there is no metadata."""

    trouble: str = ""
    hint: str = ""


#: What stands in for the reply of a child that died or hung.
FAILED = MetadataRead("the process that reads it died or hung", "see MIGlet's log")


def fetched(
    name: str, environ: Mapping[str, str], limits: Limits
) -> tuple[Metadata | None, MetadataUnavailable | None]:
    """What the cloud called `name` says, or why it says nothing."""
    main = functools.partial(_fetch, name, dict(environ), limits)
    seconds = limits.overall_seconds + MARGIN_SECONDS
    facts = frozenset({MetadataPart})
    try:
        running = RunningTask(ChildTask("metadata", main, seconds, FAILED, facts))
    except OSError as error:
        return None, MetadataUnavailable(f"cannot fork: {error}")
    parts: list[str] = []
    result = FAILED
    while not running.done:
        for fact in running.wait():
            if isinstance(fact, MetadataPart):
                parts.append(fact.text)
            if isinstance(fact, MetadataRead):
                result = fact
        if sum(map(len, parts)) > OURS_AT_MOST:
            running.finish()
            result = MetadataRead("it is too large", "is that meant for MIGlet?")
            break
    if result.trouble:
        trouble = MetadataUnavailable(result.trouble)
        trouble.hint = result.hint or trouble.hint
        return None, trouble
    try:
        return deserialize("".join(parts)), None
    except MetadataUnavailable as error:
        return None, error


def _fetch(name: str, environ: dict[str, str], limits: Limits, queue: Queue) -> None:
    """In the child: become unprivileged, read, and keep what is ours."""
    cloud = open_cloud(name, environ, limits)
    privileges.become(privileges.TASK_USER)
    try:
        found = our_metadata(cloud.metadata(limits.deadline()))
    except MetadataUnavailable as error:
        queue.put(MetadataRead(str(error), error.hint))
        return
    finally:
        cloud.close()
    text = serialize(found)
    for start in range(0, len(text), PART_CHARACTERS):
        queue.put(MetadataPart(text[start : start + PART_CHARACTERS]))
    queue.put(MetadataRead())


def serialize(found: Metadata) -> str:
    """The metadata as text for the parts of a message."""
    user_data = base64.b64encode(found.user_data or b"").decode("ascii")
    return json.dumps({**asdict(found), "user_data": user_data})


def deserialize(text: str) -> Metadata:
    """What `serialize` was given; raises MetadataUnavailable for any other text."""
    try:
        fields = strict_json(text.encode())
        user_data = base64.b64decode(fields.pop("user_data"), validate=True) or None
        found = Metadata(**fields, user_data=user_data)
        texts = [*fields.pop("attributes").items(), fields.values()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"not the metadata of a machine: {type(error).__name__}"
        raise MetadataUnavailable(reason) from None
    if not all(isinstance(each, str | None) for each in chain(*texts)):
        raise MetadataUnavailable(
            "not the metadata of a machine: not all of it is text"
        )
    return found


def our_metadata(metadata: Metadata) -> Metadata:
    """The metadata without what is nobody's business here: others' attributes and data.

    Raises MetadataUnavailable when what is left is too large to be settings.
    """
    user_data = metadata.user_data or b""
    first = user_data.lstrip(b"\xef\xbb\xbf")[:64].lstrip()
    ours = first.startswith((OURS.encode(), CLOUD_INIT.encode()))
    kept = replace(
        metadata,
        attributes=usual(metadata.attributes),
        user_data=user_data if ours else None,
    )
    size = len(kept.user_data or b"") + sum(map(len, kept.attributes.values()))
    if size > OURS_AT_MOST // 2:
        raise MetadataUnavailable(f"{size} bytes are more than settings have")
    return kept


def usual(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes that are ours, in the usual spelling of their names."""
    spelt = {name.lower().replace("_", "-"): text for name, text in attributes.items()}
    return {
        name: text for name, text in spelt.items() if name.startswith(ATTRIBUTE_PREFIX)
    }
