"""The check of the credential that the controller knows this machine by."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from miglet.config.settings import Settings
from miglet.preflight.registry import Notable, Unavailable, check

#: The settings that name a file, by the kind of authentication.
FILES = {
    "none": (),
    "bearer": ("token_path",),
    "mtls": ("certificate_path", "key_path"),
}

#: The files that nobody else may read.
SECRET = ("token_path", "key_path")


@check
def controller_credential(settings: Settings, deadline: float) -> str:
    """Token, or certificate and key, can be read, and not by everybody."""
    auth = settings.controller.auth
    names = [*FILES[auth.type], *(["ca_path"] if auth.ca_path else [])]
    for name in names:
        path = Path(auth[name])
        _readable(path, f"controller.auth.{name}")
        if name in SECRET and stat.S_IMODE(os.stat(path).st_mode) & stat.S_IROTH:
            raise Notable(f"everybody can read {path}", f"chmod o-r {path}")
    return f"{auth.type}: {', '.join(auth[name] for name in names) or 'nothing needed'}"


def _readable(path: Path, key: str) -> None:
    """A file that comes later is waited for, so this is no misconfiguration."""
    hint = f"put it there, or set {key}; MIGlet waits for it"
    try:
        empty = not path.stat().st_size
    except OSError as error:
        raise Notable(f"{path}: {error.strerror}", hint) from None
    if empty:
        raise Notable(f"{path} is empty", hint)
    if not os.access(path, os.R_OK):
        raise Unavailable(f"{path} is not readable by MIGlet", f"see {key}")
