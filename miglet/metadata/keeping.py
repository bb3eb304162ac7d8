"""The controller's token from the metadata, put where the workers read it.

It is in one file below ``paths.runtime``, for the workers' user alone: not in the
settings, not in an environment, not in a log. The one rule: only the start, which
may be root, writes it, and it is whole or not there.
"""

from __future__ import annotations

from pathlib import Path

from miglet.config.settings import Settings
from miglet.errors import Fault, Misconfigured, status_after
from miglet.metadata.credential import write_private
from miglet.metadata.settings import TOKEN_KEY, TOKEN_SOURCE
from miglet.metadata.sources import Sources


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
