"""The settings in a machine's metadata: attributes, and user data that is ours.

Untrusted text, YAML among it, is parsed here, in a process that is not root.
The result is raw values of known keys, and faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from miglet.config.schema import ATTRIBUTE_PREFIX
from miglet.config.sources import (
    Layer,
    Unreadable,
    attributes_layer,
    decoded,
    document_layer,
    unusable,
)
from miglet.errors import Fault
from miglet.messages.codec import Value, frozen_value
from miglet.metadata.attempts import MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.credential import CONTROLLER_TOKEN, LONGEST_TOKEN, usable_token
from miglet.redaction import redact, remember_secret

SOURCE = "metadata"

#: The attribute that a registration token may lie in; read when it is needed.
REGISTRATION_TOKEN = "miglet-registration-token"

TOKEN_SOURCE = f"{SOURCE} {CONTROLLER_TOKEN}"

#: The setting that names the file with the controller's token.
TOKEN_KEY = "controller.auth.token_path"

#: The first line of user data that is our document as a whole, and of user data
#: (https://cloudinit.readthedocs.io/) in which a section may be ours.
OURS, CLOUD_INIT = "#miglet-config", "#cloud-config"

#: How our section of another's document begins.
SECTION = "miglet:"

#: Most bytes that our part of the metadata may have.
OURS_AT_MOST = 512 * 1024


@frozen_value
class MetadataSettings(Value):
    """What of a machine's metadata is MIGlet's business."""

    #: The machine's names, without attributes and user data.
    machine: Metadata
    #: Settings and mistakes.
    layer: Layer = field(repr=False)
    #: The controller's token; None: there is none that can be used.
    token: str | None = field(default=None, repr=False)
    #: The attributes that are there and hold a token.
    secrets: tuple[str, ...] = ()


def settings_in(metadata: Metadata) -> MetadataSettings:
    """Parse the metadata; raises MetadataUnavailable if our part of it is too large."""
    attributes = usual(metadata.attributes)
    machine = replace(metadata, attributes={}, user_data=None)
    size = len(our_user_data(metadata)) + sum(map(len, attributes.values()))
    if size > OURS_AT_MOST:
        raise MetadataUnavailable(f"{size} bytes are more than settings have")
    token = usable_token(attributes.get(CONTROLLER_TOKEN, ""))
    secrets = secret_names(attributes)
    layer = metadata_layer(attributes, our_user_data(metadata))
    return MetadataSettings(machine, layer, token, tuple(secrets))


def usual(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes that are ours, in the usual spelling of their names."""
    spelt = {name.lower().replace("_", "-"): text for name, text in attributes.items()}
    return {
        name: text for name, text in spelt.items() if name.startswith(ATTRIBUTE_PREFIX)
    }


def our_user_data(metadata: Metadata) -> bytes:
    """The user data if it may hold settings; as a rule it is somebody else's."""
    user_data = metadata.user_data or b""
    first = user_data.lstrip(b"\xef\xbb\xbf")[:64].lstrip()
    ours = first.startswith((OURS.encode(), CLOUD_INIT.encode()))
    return user_data if ours else b""


def secret_names(attributes: Mapping[str, str]) -> list[str]:
    """The attributes that are there and hold a token."""
    return [
        each for each in (CONTROLLER_TOKEN, REGISTRATION_TOKEN) if each in attributes
    ]


def metadata_layer(attributes: Mapping[str, str], user_data: bytes) -> Layer:
    """The settings that both hold, and what is wrong with them, without a secret."""
    secrets = secret_names(attributes)
    for name in secrets:
        remember_secret(attributes[name])
    open_ones = {name: text for name, text in attributes.items() if name not in secrets}
    layer = attributes_layer(SOURCE, open_ones).over(user_data_layer(user_data))
    faults = (*layer.faults, *token_faults(attributes.get(CONTROLLER_TOKEN)))
    return Layer(SOURCE, layer.values, tuple(map(redacted, faults)))


def redacted(fault: Fault) -> Fault:
    """The same fault without anything that looks like a secret."""
    return Fault(*map(redact, fault))


def token_faults(text: str | None) -> tuple[Fault, ...]:
    """What is wrong with the controller's token, without a word of it."""
    if text is None or usable_token(text):
        return ()
    reason = f"expected one printable ASCII word of at most {LONGEST_TOKEN} characters"
    found = "something else" if text.strip() else "nothing"
    return (Fault(TOKEN_KEY, TOKEN_SOURCE, f"{reason}, found {found}"),)


def user_data_layer(content: bytes) -> Layer:
    """The settings in the user data."""
    name = f"{SOURCE} user data"
    if not content.lstrip(b"\xef\xbb\xbf").startswith(b"#"):
        return Layer(name)
    try:
        return document_layer(name, our_part(decoded(content).lstrip("\ufeff")))
    except Unreadable as error:
        ours = OURS.encode() in content[:64]
        return unusable(name, str(error)) if ours else Layer(name)


def our_part(text: str) -> str:
    """Our document in the user data `text`, every line where it was; empty: none."""
    first, *rest = text.split("\n")
    if first.strip() == OURS:
        return text
    if first.strip() != CLOUD_INIT:
        return ""
    lines, within = [""], False
    for line in rest:
        if line[:1] not in ("", " ", "\t", "\r", "#"):
            within = line.startswith(SECTION)
            line = line.replace(SECTION, " " * len(SECTION), 1)
        lines.append(line if within else "")
    return "\n".join(lines)
