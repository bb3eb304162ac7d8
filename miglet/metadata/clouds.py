"""All clouds, and which of them this machine is in.

The one rule: nobody is asked anything before the firmware's own description, or
``MIGLET_CLOUD``, says which cloud this is.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from miglet.errors import Fault, Misconfigured
from miglet.metadata.attempts import Limits
from miglet.metadata.aws import Aws
from miglet.metadata.azure import Azure
from miglet.metadata.cloud import Cloud, Firmware
from miglet.metadata.gce import Gce

#: Every cloud by its name, in the order in which the firmware is compared.
CLOUDS: dict[str, type[Cloud]] = {each.name: each for each in (Gce, Aws, Azure)}

#: Says which cloud it is, or ``none``, without a look at any file.
CLOUD_VARIABLE = "MIGLET_CLOUD"
NONE = "none"

#: Names another folder in the place of ``/sys/class/dmi/id``. A file
#: ``hypervisor_uuid`` in it stands for ``/sys/hypervisor/uuid``.
ROOT_VARIABLE = "MIGLET_DMI_ROOT"

FIRMWARE = Firmware(Path("/sys/class/dmi/id"), Path("/sys/hypervisor/uuid"))


def cloud_name(environ: Mapping[str, str]) -> str | None:
    """The cloud's name; None where there is none. Raises Misconfigured.

    Some of the files are root's alone: another user may see less.
    """
    named = environ.get(CLOUD_VARIABLE, "").strip().lower()
    if named and named not in (*CLOUDS, NONE):
        reason = f"expected one of {', '.join((*CLOUDS, NONE))}; found {named[:60]!r}"
        raise Misconfigured([Fault("", f"environment {CLOUD_VARIABLE}", reason)])
    if named:
        return None if named == NONE else named
    root = environ.get(ROOT_VARIABLE)
    folder = Path(root) if root else None
    firmware = Firmware(folder, folder / "hypervisor_uuid") if folder else FIRMWARE
    matching = (each for each in CLOUDS if CLOUDS[each].is_described_by(firmware))
    return next(matching, None)


def open_cloud(name: str, environ: Mapping[str, str], limits: Limits) -> Cloud:
    """The cloud of that name, at the address that `environ` may set.

    Nothing is connected to before the first question.
    """
    # Only a process that asks pays for the HTTP libraries: 7 MB and 50 ms.
    server = importlib.import_module("miglet.metadata.server").Server
    cloud = CLOUDS[name]
    base = cloud.base_url(environ.get(cloud.endpoint_variable) or cloud.endpoint)
    return cloud(server(base, cloud.headers, limits))


def metadata_addresses() -> tuple[str, ...]:
    """Every address at which some cloud serves metadata."""
    found = (address for cloud in CLOUDS.values() for address in cloud.addresses)
    return tuple(dict.fromkeys(found))


def metadata_hosts() -> tuple[str, ...]:
    """The same, and every name that jobs may know one of them by."""
    names = (name for cloud in CLOUDS.values() for name in cloud.host_names)
    return (*metadata_addresses(), *names)
