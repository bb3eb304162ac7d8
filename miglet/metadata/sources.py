"""Every source of the configuration, metadata among them: what a start begins with.

The one rule: metadata that cannot be had delays the start by a bounded time, keeps
nothing else from being judged, and is named in whatever is missing because of it.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from miglet.config.files import layers_of
from miglet.config.flattening import Value
from miglet.config.load import Loaded, drafted, load
from miglet.config.sources import Layer, Layers
from miglet.config.validation import NOWHERE
from miglet.errors import Fault, Misconfigured
from miglet.messages.facts import FaultNoted
from miglet.metadata.cloud import Metadata, cloud_called
from miglet.metadata.faults import MetadataUnavailable
from miglet.metadata.firmware import cloud_name
from miglet.metadata.limits import Limits
from miglet.metadata.settings import (
    SOURCE,
    TOKEN_KEY,
    TOKEN_SOURCE,
    controller_token,
    machine_layer,
    metadata_layer,
    redacted,
)

#: The name of the file in ``paths.runtime`` that the controller's token is kept in.
TOKEN_FILE = "controller-token"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What there is to make a configuration of."""

    layers: Layers = field(repr=False)
    #: None: this machine is in no cloud.
    cloud: str | None = None
    #: None: there is none, or `trouble` says why it could not be had.
    metadata: Metadata | None = None
    trouble: MetadataUnavailable | None = None
    #: What reading the metadata took.
    milliseconds: float = 0.0
    #: The controller's token, where the metadata has it.
    token: str | None = field(default=None, repr=False)
    #: The file that the token belongs in.
    token_path: str = ""

    def loaded(self) -> Loaded:
        """The effective settings; raises Misconfigured with every mistake."""
        try:
            return load(self.layers)
        except Misconfigured as error:
            faults = [self._explained(redacted(fault)) for fault in error.faults]
            raise Misconfigured(faults) from None

    def whole(self) -> Layers:
        """The layers, metadata among them where there should be some.

        Raises Misconfigured without it: a reload would undo what it had set.
        """
        if self.trouble:
            reason = f"unavailable, so nothing is changed: {self.trouble}"
            raise Misconfigured([Fault("", SOURCE, reason, self.trouble.hint)])
        return self.layers

    def note(self) -> FaultNoted | None:
        """What the controller is told when there is no metadata; None: all is well."""
        if self.trouble is None:
            return None
        return FaultNoted(
            category=self.trouble.category,
            code="metadata_unavailable",
            message=f"started without metadata of {self.cloud}: {self.trouble}",
            component=SOURCE,
            hint=self.trouble.hint,
        )

    def identity(self) -> dict[str, str | None]:
        """What VMStarted says of the cloud; null is what is not known."""
        told = self.metadata or Metadata("")
        return {
            "cloud": self.cloud,
            "zone": told.zone,
            "machine_type": told.machine_type,
            "image": told.image,
            "instance_name": told.instance_name,
            "hostname": told.hostname or socket.gethostname(),
        }

    def checks(self) -> list[dict[str, Any]]:
        """A row for the report of the machine's checks; none outside of a cloud."""
        if self.cloud is None:
            return []
        row = {"id": SOURCE, "milliseconds": self.milliseconds}
        if self.trouble:
            told = {"status": "warn", "detail": f"{self.cloud}: {self.trouble}"}
            return [{**row, **told, "hint": self.trouble.hint, "category": ""}]
        known = self.metadata and self.metadata.vm_id
        detail = f"{self.cloud}: instance {known or 'without an id'}"
        ok = {"status": "ok", "detail": detail, "hint": "", "category": ""}
        return [{**row, **ok}]

    def _explained(self, fault: Fault) -> Fault:
        """A setting that is missing may be in the metadata that could not be had."""
        if self.trouble is None or fault.source != NOWHERE:
            return fault
        reason = f"{fault.reason} (metadata was unavailable: {self.trouble})"
        return fault._replace(reason=reason)


def sources_of(
    environ: Mapping[str, str],
    sources: Mapping[str, Any],
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> Sources:
    """Everything read; `sources` are ``file`` and ``assignments`` of `layers_of`.

    Takes at most `limits.overall_seconds`, on a machine without a cloud nothing.
    """
    try:
        name = cloud_name(environ)
    except Misconfigured as error:
        layer = Layer(SOURCE, {}, tuple(error.faults))
        return Sources(layers_of(environ, **sources, metadata=layer))
    if name is None:
        return Sources(layers_of(environ, **sources))
    began = time.monotonic()
    metadata, trouble = asked(name, environ, limits)
    took = round((time.monotonic() - began) * 1000, 1)
    if metadata is None:
        log.warning("no metadata of %s: %s", name, trouble)
        layers = layers_of(environ, **sources)
        return Sources(layers, name, None, trouble, took)
    layers = layers_of(
        environ,
        **sources,
        metadata=metadata_layer(metadata),
        machine=machine_layer(metadata),
    )
    return with_token(Sources(layers, name, metadata, None, took))


def asked(
    name: str, environ: Mapping[str, str], limits: Limits
) -> tuple[Metadata | None, MetadataUnavailable | None]:
    """The cloud's answer, or why there is none."""
    cloud = cloud_called(name, environ, limits)
    try:
        return cloud.metadata(limits.deadline()), None
    except MetadataUnavailable as error:
        return None, error
    finally:
        cloud.close()


def with_token(found: Sources) -> Sources:
    """`found`, with the token's file as ``token_path`` where nobody named another."""
    token = controller_token(found.metadata) if found.metadata else None
    runtime = drafted(found.layers).values.get("paths.runtime")
    if token is None or not isinstance(runtime, str):
        return found
    path = f"{runtime.rstrip('/')}/{TOKEN_FILE}"
    machine = found.layers.machine
    values = {**machine.values, TOKEN_KEY: Value(path, TOKEN_SOURCE)}
    layers = dataclasses.replace(
        found.layers, machine=dataclasses.replace(machine, values=values)
    )
    return dataclasses.replace(found, layers=layers, token=token, token_path=path)
