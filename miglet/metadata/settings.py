"""From metadata to layers of the configuration, and what must not become one.

A single attribute goes before the document ``miglet-config``, which goes before user
data. The one rule: a token never becomes a setting, and no fault repeats a secret.
"""

from __future__ import annotations

from collections.abc import Mapping

from miglet.config.sources import (
    ATTRIBUTE_PREFIX,
    Layer,
    Unreadable,
    Value,
    attributes_layer,
    decoded,
    document_layer,
    unusable,
)
from miglet.errors import Fault
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


def metadata_layer(metadata: Metadata) -> Layer:
    """The settings that attributes and user data hold, and what is wrong with them."""
    attributes = usual(metadata.attributes)
    secrets = secret_names(metadata)
    for name in secrets:
        remember_secret(attributes[name])
    open_ones = {name: text for name, text in attributes.items() if name not in secrets}
    layer = attributes_layer(SOURCE, open_ones).over(user_data_layer(metadata))
    faults = (*layer.faults, *token_faults(attributes.get(CONTROLLER_TOKEN)))
    return Layer(SOURCE, layer.values, tuple(map(redacted, faults)))


def secret_names(metadata: Metadata) -> list[str]:
    """The attributes that are there and hold a token."""
    present = usual(metadata.attributes)
    return [each for each in (CONTROLLER_TOKEN, REGISTRATION_TOKEN) if each in present]


def usual(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes that are ours, in the usual spelling of their names."""
    spelt = {name.lower().replace("_", "-"): text for name, text in attributes.items()}
    return {
        name: text for name, text in spelt.items() if name.startswith(ATTRIBUTE_PREFIX)
    }


def controller_token(metadata: Metadata) -> str | None:
    """The controller's token; None if there is none that can be used."""
    return usable_token(usual(metadata.attributes).get(CONTROLLER_TOKEN, ""))


def token_faults(text: str | None) -> tuple[Fault, ...]:
    """What is wrong with the controller's token, without a word of it."""
    if text is None or usable_token(text):
        return ()
    reason = f"expected one printable ASCII word of at most {LONGEST_TOKEN} characters"
    found = "something else" if text.strip() else "nothing"
    return (Fault(TOKEN_KEY, TOKEN_SOURCE, f"{reason}, found {found}"),)


def machine_layer(metadata: Metadata) -> Layer:
    """What the machine is known as when nobody gives it another name."""
    if metadata.vm_id is None:
        return Layer("machine")
    value = Value(metadata.vm_id, f"{metadata.cloud} instance id")
    return Layer("machine", {"vm_id": value})


def user_data_layer(metadata: Metadata) -> Layer:
    """The settings in the user data, which as a rule is somebody else's."""
    name = f"{SOURCE} user data"
    content = metadata.user_data or b""
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


def redacted(fault: Fault) -> Fault:
    """The same fault without anything that looks like a secret."""
    return Fault(*map(redact, fault))
