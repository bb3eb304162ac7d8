"""Reads and parses the metadata in a child of its own, which is not root.

What a metadata server sends is untrusted until it has been parsed:
the process that speaks HTTP and parses YAML becomes the user of child tasks first. The
caller, which may be root, gets a raw value for each known key, the faults, and the
names of the machine, in small messages whose types, sizes and depths are checked.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, TypedDict

from miglet.config.load import MOST_FAULTS, bounded
from miglet.config.schema import KEYS, expected
from miglet.config.sources import DEEPEST, Layer, Table, Value
from miglet.errors import BadMessage, Fault
from miglet.messages.codec import Depth, Fact, Keys, Length, OneOf, Word, frozen_value
from miglet.metadata.attempts import Limits, MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.clouds import open_cloud
from miglet.metadata.credential import CONTROLLER_TOKEN, LONGEST_TOKEN
from miglet.metadata.settings import (
    REGISTRATION_TOKEN,
    SOURCE,
    MetadataSettings,
    settings_in,
)
from miglet.redaction import remember_secret
from miglet.supervisor import privileges
from miglet.supervisor.children import ChildTask, RunningTask
from miglet.supervisor.queues import Queue, QueueClosed

#: Most characters of a source, a reason and a hint.
TEXT_CHARACTERS = 4096

#: Seconds on top of what reading may take after which the child counts as hung.
MARGIN_SECONDS = 2.0

Text = Annotated[str, Length(TEXT_CHARACTERS)]


class MachineNames(TypedDict):
    """The fields of `Metadata` that name the machine."""

    vm_id: Text | None
    zone: Text | None
    machine_type: Text | None
    image: Text | None
    instance_name: Text | None
    hostname: Text | None


@frozen_value
class MetadataSet(Fact):
    """The metadata has a value for a setting."""

    key: Annotated[str, OneOf(tuple(KEYS))]
    #: Text, null, or lists and objects of them: it is still to be parsed and judged.
    raw: Annotated[Any, Depth(DEEPEST)] = field(repr=False)
    source: Text


@frozen_value
class MetadataMistaken(Fact):
    """Something in the metadata is no setting; the fields of `Fault`."""

    key: Text
    source: Text
    reason: Text
    hint: Text


@frozen_value
class MetadataRead(Fact):
    """All of it was sent, or `error` says why there is no metadata."""

    names: Annotated[dict[str, Any], Keys(MachineNames, closed=True)] | None = None
    token: Annotated[str, Word(LONGEST_TOKEN)] | None = field(default=None, repr=False)
    secrets: list[Annotated[str, OneOf((CONTROLLER_TOKEN, REGISTRATION_TOKEN))]] = (
        field(default_factory=list)
    )
    error: Text = ""
    hint: Text = ""


#: What stands in for the reply of a child that died or hung.
FAILED = MetadataRead(
    error="the process that reads it died or hung", hint="see MIGlet's log"
)

#: What stands in for a reply that a child of ours would not give.
FORGED = MetadataRead(
    error="the process that reads it sent what it may not", hint="see MIGlet's log"
)


def fetched(
    name: str, environ: Mapping[str, str], limits: Limits
) -> tuple[MetadataSettings | None, MetadataUnavailable | None]:
    """What the cloud called `name` says, or why it says nothing."""
    main = functools.partial(_fetch, name, dict(environ), limits)
    seconds = limits.overall_seconds + MARGIN_SECONDS
    facts = frozenset({MetadataSet, MetadataMistaken})
    try:
        running = RunningTask(ChildTask("metadata", main, seconds, FAILED, facts))
    except OSError as error:
        return None, MetadataUnavailable(f"cannot fork: {error}")
    values: dict[str, Value] = {}
    faults: list[Fault] = []
    result = FAILED
    while not running.done:
        for fact in running.wait():
            if isinstance(fact, MetadataSet):
                values[fact.key] = Value(fact.raw, fact.source)
            elif isinstance(fact, MetadataMistaken):
                faults.append(Fault(**vars(fact)))
            elif isinstance(fact, MetadataRead):
                result = fact
        # One more than the faults counts those that are not listed.
        if len(faults) > MOST_FAULTS + 1:
            running.finish()
            result = FORGED
    return _received(name, result, Layer(SOURCE, values, tuple(faults)))


def _received(
    name: str, result: MetadataRead, layer: Layer
) -> tuple[MetadataSettings | None, MetadataUnavailable | None]:
    """What the child has reported, if a child of ours reports such a thing."""
    sources = [value.source for value in layer.values.values()]
    sources += [fault.source for fault in layer.faults]
    if not all(source.startswith(SOURCE) for source in sources):
        result = FORGED
    if result.error or result.names is None:
        error = MetadataUnavailable(result.error or FORGED.error)
        error.hint = result.hint or error.hint
        return None, error
    if result.token:
        remember_secret(result.token)
    machine = Metadata(name, **result.names)
    return MetadataSettings(machine, layer, result.token, tuple(result.secrets)), None


def _fetch(name: str, environ: dict[str, str], limits: Limits, queue: Queue) -> None:
    """In the child: become unprivileged, read and parse, and report what is ours."""
    cloud = open_cloud(name, environ, limits)
    privileges.become(privileges.TASK_USER)
    try:
        found = settings_in(cloud.metadata(limits.deadline()))
    except MetadataUnavailable as error:
        queue.put(MetadataRead(error=str(error), hint=error.hint))
        return
    finally:
        cloud.close()
    faults = list(found.layer.faults)
    for key, value in found.layer.values.items():
        try:
            queue.put(MetadataSet(key, _document(value.raw), value.source))
        except QueueClosed:
            raise
        except BadMessage:
            kibibytes = MetadataSet.size_limit // 1024
            reason = f"expected {expected(KEYS[key])}, found more than {kibibytes} KiB"
            faults.append(Fault(key, value.source, reason))
    for fault in bounded(faults):
        source = fault.source if fault.source.startswith(SOURCE) else SOURCE
        clipped = (text[:TEXT_CHARACTERS] for text in fault._replace(source=source))
        queue.put(MetadataMistaken(*clipped))
    names = {
        each: getattr(found.machine, each) for each in MachineNames.__annotations__
    }
    queue.put(MetadataRead(names, found.token, list(found.secrets)))


def _document(node: Any) -> Any:
    """A node as plain JSON."""
    if isinstance(node, Table):
        return {entry.key: _document(entry.node) for entry in node.entries}
    return [_document(each) for each in node] if isinstance(node, list) else node
