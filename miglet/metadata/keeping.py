"""The controller's token from the metadata, put where the workers read it.

It is in one file below ``paths.runtime``, for the workers' user alone: not in the
settings, not in an environment, not in a log. The one rule: only the start, which
may be root, writes it, and it is whole or not there.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from miglet.config.settings import Settings
from miglet.errors import Fault, Misconfigured, status_after
from miglet.metadata.settings import TOKEN_KEY, TOKEN_SOURCE
from miglet.metadata.sources import Sources
from miglet.supervisor.confinement import MIGLET_USER, miglet_user_exists
from miglet.supervisor.privileges import account


def keep_token(found: Sources, settings: Settings) -> None:
    """Write the token that `found` has, if `settings` say that it is the one used.

    Raises Misconfigured when it cannot be written.
    """
    auth = settings.controller.auth
    if found.token is None or auth.type != "bearer":
        return
    if auth.token_path != found.token_path:
        return
    try:
        write_private(Path(found.token_path), found.token)
    except OSError as error:
        reason = f"cannot be kept in {found.token_path}: {error.strerror or error}"
        fault = Fault(TOKEN_KEY, TOKEN_SOURCE, reason)
        raise Misconfigured([fault], status_after(error)) from None


def write_private(path: Path, text: str) -> None:
    """Replace the file at `path` by one of the workers' user; raises OSError.

    Under a new name first: nobody sees half of it, and nobody's link is followed.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o600), "w", encoding="ascii") as stream:
            give_to_workers(stream.fileno())
            stream.write(text + "\n")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def give_to_workers(descriptor: int) -> None:
    """Started as root, the workers are somebody else."""
    if os.geteuid() == 0 and miglet_user_exists():
        workers = account(MIGLET_USER)
        os.fchown(descriptor, workers.uid, workers.gid)
