"""Every source of the configuration, metadata among them: what a start begins with.

The one rule: metadata that cannot be had delays the start by a bounded time, keeps
nothing else from being judged, and is named in whatever is missing because of it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miglet.config.load import NOWHERE, Loaded, drafted, load
from miglet.config.schema import KEYS
from miglet.config.settings import Settings
from miglet.config.sources import Layer, Layers, Value, layers_of
from miglet.errors import Fault, Misconfigured, status_after
from miglet.messages.facts import FaultNoted
from miglet.metadata.attempts import Limits, MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.clouds import cloud_name
from miglet.metadata.credential import CONTROLLER_TOKEN, token_path, write_private
from miglet.metadata.fetch import fetched
from miglet.metadata.settings import (
    SOURCE,
    TOKEN_KEY,
    TOKEN_SOURCE,
    MetadataSettings,
    redacted,
)

#: The setting that keeps the runner's user from the metadata server.
BLOCK_KEY = "runner.block_metadata"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What there is to make a configuration of."""

    layers: Layers = field(repr=False)
    #: None: this machine is in no cloud.
    cloud: str | None = None
    #: None: there is none, or `error` says why it could not be had.
    metadata: MetadataSettings | None = None
    error: MetadataUnavailable | None = None
    #: What reading the metadata took.
    milliseconds: float = 0.0
    #: The controller's token, where the metadata has it; empty: it is awaited.
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
        if self.error:
            reason = f"unavailable, so nothing is changed: {self.error}"
            raise Misconfigured([Fault("", SOURCE, reason, self.error.hint)])
        return self.layers

    def note(self) -> FaultNoted | None:
        """The fault to report to the controller when there is no metadata."""
        if self.error is None:
            return None
        return FaultNoted(
            category=self.error.category,
            code="metadata_unavailable",
            message=f"started without metadata of {self.cloud}: {self.error}",
            component=SOURCE,
            hint=self.error.hint,
        )

    def identity(self) -> dict[str, str | None]:
        """What VMStarted says of the cloud; null is what is not known."""
        machine = self.metadata.machine if self.metadata else Metadata("")
        return {
            "cloud": self.cloud,
            "zone": machine.zone,
            "machine_type": machine.machine_type,
            "image": machine.image,
            "instance_name": machine.instance_name,
            "hostname": machine.hostname or socket.gethostname(),
        }

    def checks(self) -> list[dict[str, Any]]:
        """A row for the report of the machine's checks; none outside of a cloud."""
        if self.cloud is None:
            return []
        row = {"id": SOURCE, "milliseconds": self.milliseconds}
        if self.error:
            problem = {"status": "warn", "detail": f"{self.cloud}: {self.error}"}
            return [{**row, **problem, "hint": self.error.hint, "category": ""}]
        known = self.metadata and self.metadata.machine.vm_id
        detail = f"{self.cloud}: instance {known or 'without an id'}"
        ok = {"status": "ok", "detail": detail, "hint": "", "category": ""}
        return [{**row, **ok}]

    def _explained(self, fault: Fault) -> Fault:
        """A setting that is missing may be in the metadata that could not be had."""
        if self.error is None or fault.source != NOWHERE:
            return fault
        reason = f"{fault.reason} (metadata was unavailable: {self.error})"
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
    except Misconfigured as mistakes:
        layer = Layer(SOURCE, {}, tuple(mistakes.faults))
        return Sources(layers_of(environ, **sources, metadata=layer))
    if name is None:
        return Sources(layers_of(environ, **sources))
    began = time.monotonic()
    metadata, error = fetched(name, environ, limits)
    took = round((time.monotonic() - began) * 1000, 1)
    if metadata is None:
        log.warning("no metadata of %s: %s", name, error)
        layers = layers_of(environ, **sources)
        return with_block(with_token(Sources(layers, name, None, error, took)))
    layers = layers_of(
        environ,
        **sources,
        metadata=metadata.layer,
        machine=machine_layer(metadata.machine),
    )
    return with_block(with_token(Sources(layers, name, metadata, None, took)))


def machine_layer(machine: Metadata) -> Layer:
    """What the machine is known as when nobody gives it another name."""
    if machine.vm_id is None:
        return Layer("machine")
    value = Value(machine.vm_id, f"{machine.cloud} instance id")
    return Layer("machine", {"vm_id": value})


def with_token(found: Sources) -> Sources:
    """`found`, with the token's file as ``token_path`` where nobody named another.

    Where there is neither an attribute nor the usual file, the attribute is awaited:
    managed instance groups make the machine before the controller knows of it.
    """
    token = found.metadata.token if found.metadata else None
    runtime = drafted(found.layers).values.get("paths.runtime")
    if token is None and not is_awaited(found) or not isinstance(runtime, str):
        return found
    path = token_path(runtime)
    source = TOKEN_SOURCE if token else f"{TOKEN_SOURCE}, which is awaited"
    found = with_machine_value(found, TOKEN_KEY, Value(path, source))
    return dataclasses.replace(found, token=token or "", token_path=path)


def is_awaited(found: Sources) -> bool:
    """Whether only an attribute that is still to be set can bring the token."""
    if drafted(found.layers).values.get("controller.auth.type") != "bearer":
        return False
    named = any(TOKEN_KEY in layer.values for layer in found.layers)
    return not named and not os.path.exists(KEYS[TOKEN_KEY].rules["default"])


def with_block(found: Sources) -> Sources:
    """`found`, with the runner's user kept from metadata that holds a secret.

    This is what ``runner.block_metadata: auto`` means; true or false goes before it.
    """
    secret = secret_in(found)
    if not secret:
        return found
    value = Value("true", f"{SOURCE} holds a secret, {secret}")
    return with_machine_value(found, BLOCK_KEY, value)


def secret_in(found: Sources) -> str:
    """What of the metadata is a secret, or will be; empty if nothing is."""
    names = list(found.metadata.secrets) if found.metadata else []
    for name, value in found.layers.metadata.values.items():
        if KEYS[name].secret and "@" in str(value.raw):
            names.append(name)
    values = drafted(found.layers).values
    if values.get("github.token_source") == "metadata":
        names.append("github.metadata_path")
    if values.get("controller.auth.type") == "bearer" and not found.token:
        path = values.get(TOKEN_KEY)
        if path == found.token_path or not os.path.exists(str(path)):
            # It is awaited: as a file, or as this attribute.
            names.append(CONTROLLER_TOKEN)
    return names[0] if names else ""


def with_machine_value(found: Sources, key: str, value: Value) -> Sources:
    """`found` with what the machine itself says of `key`."""
    machine = found.layers.machine
    machine = dataclasses.replace(machine, values={**machine.values, key: value})
    layers = dataclasses.replace(found.layers, machine=machine)
    return dataclasses.replace(found, layers=layers)


def keep_token(found: Sources, settings: Settings) -> None:
    """Write the token that `found` has, if `settings` say that it is the one used.

    One that is awaited makes an empty file, which the notice-watcher may write to.

    Raises Misconfigured when it cannot be written.
    """
    auth, path = settings.controller.auth, Path(found.token_path)
    if found.token is None or auth.type != "bearer" or auth.token_path != str(path):
        return
    if not found.token and path.exists():
        # Awaited; a start before this one may have taken it since.
        return
    try:
        write_private(path, found.token)
    except OSError as error:
        reason = f"cannot be kept in {found.token_path}: {error.strerror or error}"
        fault = Fault(TOKEN_KEY, TOKEN_SOURCE, reason)
        raise Misconfigured([fault], status_after(error)) from None
