"""The controller's token in the metadata, and the file that the workers read it from.

A managed instance group makes the machine first, and the controller sets the attribute
afterwards: it is watched. The file is below ``paths.runtime`` and belongs to the
workers' user; only the start, which may be root, makes it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from miglet.config.settings import Settings
from miglet.metadata.attempts import Limits, MetadataUnavailable
from miglet.metadata.clouds import open_cloud
from miglet.redaction import remember_secret
from miglet.safefile import NotPlain, read_small
from miglet.supervisor.privileges import (
    CREDENTIAL_GROUP,
    NOTICE_USER,
    group_id,
    unprivileged_account,
)

#: The attribute that holds the controller's bearer token itself.
CONTROLLER_TOKEN = "miglet-controller-token"

#: The name of the file in ``paths.runtime`` that the token is kept in.
TOKEN_FILE = "controller-token"

#: Beyond this a server commonly refuses the header that the token travels in.
LONGEST_TOKEN = 8192

#: Seconds that one look at the attribute may take.
LOOK_SECONDS = 5.0

log = logging.getLogger(__name__)


def token_path(runtime: str) -> str:
    """The file for a token from metadata."""
    return f"{runtime.rstrip('/')}/{TOKEN_FILE}"


def usable_token(text: str) -> str | None:
    """The token that `text` is: one printable ASCII word; None: it is none."""
    token = text.strip()
    printable = all("!" <= character <= "~" for character in token)
    return token if token and printable and len(token) <= LONGEST_TOKEN else None


class AwaitedToken:
    """Keeps the file as the attribute is; the notice-watcher looks now and then.

    While there is no attribute, a token in `elsewhere`, the file where it usually is,
    serves as well.
    """

    def __init__(
        self, cloud: str, environ: Mapping[str, str], path: str, elsewhere: str
    ) -> None:
        limits = Limits(LOOK_SECONDS, tries=1, overall_seconds=LOOK_SECONDS)
        self._cloud = open_cloud(cloud, environ, limits)
        self._path = path
        self._elsewhere = elsewhere
        self._error = ""

    def look(self) -> bool:
        """Whether the file has another token than before."""
        token = usable_token(self._attribute() or text_in(self._elsewhere))
        if token is None or token == usable_token(text_in(self._path)):
            return False
        remember_secret(token)
        try:
            overwrite(self._path, f"{token}\n".encode())
        except OSError as error:
            log.warning("the controller's token cannot be kept: %s", error)
            return False
        log.info("took the controller's token from %s", CONTROLLER_TOKEN)
        return True

    def close(self) -> None:
        """Drop the connection."""
        self._cloud.close()

    def _attribute(self) -> str:
        try:
            text = self._cloud.text(CONTROLLER_TOKEN, time.monotonic() + LOOK_SECONDS)
        except MetadataUnavailable as error:
            if not self._error:
                log.warning("%s cannot be read: %s", CONTROLLER_TOKEN, error)
            self._error = str(error)
            return ""
        self._error = ""
        return text or ""


def awaited_token(
    settings: Settings, cloud: str, environ: Mapping[str, str], elsewhere: str
) -> AwaitedToken | None:
    """What keeps the token's file, where the token comes from metadata."""
    auth, path = settings.controller.auth, token_path(settings.paths.runtime)
    if auth.type != "bearer" or auth.token_path != path:
        return None
    return AwaitedToken(cloud, environ, path, elsewhere)


def text_in(path: str) -> str:
    """What the file says; empty if there is no such file."""
    try:
        return read_small(path, LONGEST_TOKEN + 1).decode("ascii", errors="replace")
    except (OSError, NotPlain):
        return ""


def overwrite(path: str, content: bytes) -> None:
    """Replace a file's content in place: its folder is root's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "wb", buffering=0) as file:
        # A reader in between sees no token, or one that the controller refuses, and
        # reads again.
        os.ftruncate(descriptor, 0)
        file.write(content)


def write_private(path: Path, text: str) -> None:
    """Replace the file at `path` by one for the workers; raises OSError.

    Under a new name first: nobody sees half of it, and nobody's link is followed.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Not by `secrets`, which would load all of OpenSSL into the child.
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o600), "w", encoding="ascii") as stream:
            give_to_workers(stream.fileno())
            stream.write(text + "\n")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def give_to_workers(descriptor: int) -> None:
    """Started as root: the notice-watcher keeps the file, its readers are a group.

    Where that group is missing, all workers are one user.
    """
    owner = unprivileged_account(NOTICE_USER)
    if os.geteuid() != 0 or owner is None:
        return
    readers = group_id(CREDENTIAL_GROUP)
    os.fchown(descriptor, owner.uid, owner.gid if readers is None else readers)
    os.fchmod(descriptor, 0o600 if readers is None else 0o640)
