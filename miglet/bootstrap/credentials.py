"""The check of the credential that the controller knows this machine by.

A file that comes later is waited for, so what is wrong with one is only a warning.
"""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path
from typing import Any

from miglet.bootstrap.framework import CheckWarning, check
from miglet.config.settings import AuthSettings, Settings
from miglet.runner.installation import may, named
from miglet.supervisor.privileges import (
    HEARTBEAT_USER,
    Account,
    unprivileged_account,
)

#: The files that nobody else may read.
SECRET = ("token_path", "key_path")


@check
def controller_credential(settings: Settings, deadline: float) -> str:
    """Token, or certificate and key, can be used, and not by everybody."""
    auth = settings.controller.auth
    files = files_of(auth)
    reader = unprivileged_account(HEARTBEAT_USER) if os.geteuid() == 0 else None
    for name, path in files.items():
        usable(Path(path), f"controller.auth.{name}", reader)
        if name in SECRET and os.stat(path).st_mode & stat.S_IROTH:
            raise CheckWarning(f"everybody can read {path}", f"chmod o-r {path}")
    if auth.type == "mtls" or auth.ca_path:
        client_context(auth)
    return f"{auth.type}: {', '.join(files.values()) or 'nothing needed'}"


def files_of(auth: AuthSettings) -> dict[str, str]:
    """The files that this kind of authentication reads, by the setting's name."""
    files = {"ca_path": auth.ca_path}
    if auth.type == "bearer":
        files = {"token_path": auth.token_path, **files}
    if auth.type == "mtls":
        own = {"certificate_path": auth.certificate_path, "key_path": auth.key_path}
        files = {**own, **files}
    return {name: path for name, path in files.items() if path}


def usable(path: Path, key: str, reader: Account | None) -> None:
    """Raise CheckWarning unless `reader`, or we, can read something there."""
    hint = f"put it there, or set {key}; MIGlet waits for it"
    try:
        found = path.stat()
    except OSError as error:
        raise CheckWarning(f"{path}: {error.strerror}", hint) from None
    if stat.S_ISDIR(found.st_mode) and not key.endswith("ca_path"):
        raise CheckWarning(f"{path} is a folder", hint)
    if not found.st_size:
        raise CheckWarning(f"{path} is empty", hint)
    for place, mode in [*((each, os.X_OK) for each in path.parents), (path, os.R_OK)]:
        if not may(place, reader, mode):
            hint = "change owner or mode: MIGlet reads it as that user"
            raise CheckWarning(
                f"{named(reader)} may not read {path} (see {place})", hint
            )


def client_context(auth: AuthSettings) -> ssl.SSLContext:
    """TLS with our authorities and our certificate; or CheckWarning."""
    try:
        context = ssl.create_default_context(**authorities(auth.ca_path))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if auth.type == "mtls" and auth.certificate_path:
            # An empty password, so that nobody is asked for one on a terminal.
            context.load_cert_chain(auth.certificate_path, auth.key_path, password="")
    except OSError as error:  # also ssl.SSLError
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        files = [auth.ca_path, auth.certificate_path, auth.key_path]
        listed = ", ".join(path for path in files if path)
        hint = "they must be PEM, belong together and need no password"
        raise CheckWarning(f"certificate files ({listed}): {reason}", hint) from None
    return context


def authorities(path: str | None) -> dict[str, Any]:
    """Arguments of ssl.create_default_context for whom to trust."""
    if path is None:
        return {}
    return {"capath" if os.path.isdir(path) else "cafile": path}
