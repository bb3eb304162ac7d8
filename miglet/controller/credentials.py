"""Who we are to the controller: a bearer token in a file, or nobody.

A file that changed is read again before the next request, so that a credential is
rotated without a restart; while the new one is unusable, the last good one serves.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd
import stat
from pathlib import Path
from typing import Any, Protocol

from miglet.errors import CredentialUnusable
from miglet.formats import is_printable_word
from miglet.redaction import remember_secret
from miglet.safefile import Fingerprint, fingerprint

log = logging.getLogger(__name__)

#: The group that reads the credentials; the package creates it, and its only members
#: are the processes that talk to the controller.
CREDENTIAL_GROUP = "miglet-net"

#: The longest token; servers commonly refuse headers beyond 8 KiB.
LONGEST_TOKEN_BYTES = 8192


class Credential(Protocol):
    """What a request needs of any kind of authentication."""

    def headers(self) -> dict[str, str]:
        """The headers that authenticate; raises CredentialUnusable."""

    def reread(self) -> None:
        """The credential was not accepted: read it anew; raises CredentialUnusable."""


class NoToken:
    """Nothing in the headers: the connection's certificate says who we are, if any."""

    def headers(self) -> dict[str, str]:
        return {}

    def reread(self) -> None:
        """There is nothing to read."""


class BearerToken:
    """A token read from a file, and read again when the file changed."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._token: str | None = None
        self._seen: Fingerprint | None = None

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._current()}"}

    def reread(self) -> None:
        self._seen, self._token = None, None
        self._current()

    def _current(self) -> str:
        try:
            seen = fingerprint(self.path)
            if self._token is None or seen != self._seen:
                self._token = token_in(read(self.path), self.path)
            self._seen = seen
        except OSError as error:
            return self._former(unusable(self.path, error.strerror or str(error)))
        except CredentialUnusable as error:
            return self._former(error)
        return self._token

    def _former(self, error: CredentialUnusable) -> str:
        """The last good token instead of the one that is unusable now."""
        if self._token is None:
            raise error
        log.warning("the former token is still used: %s", error)
        return self._token


def read(path: str | Path) -> bytes:
    """The beginning of a small regular file; a FIFO cannot hold us up."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise unusable(path, "is not a regular file")
        return file.read(LONGEST_TOKEN_BYTES + 1)


def token_in(content: bytes, path: str | Path) -> str:
    """The token that a file's content is; known to the redaction before it is used."""
    if len(content) > LONGEST_TOKEN_BYTES:
        raise unusable(path, f"is longer than {LONGEST_TOKEN_BYTES} bytes")
    token = content.strip().decode("ascii", errors="replace")
    if not token:
        raise unusable(path, "is empty")
    if not is_printable_word(token):
        raise unusable(path, "holds something else than one printable ASCII word")
    remember_secret(token)
    return token


def unusable(path: str | Path, reason: str) -> CredentialUnusable:
    """The error that says what is wrong with the file, and what it should be like."""
    return CredentialUnusable(
        f"token file {path}{owner_and_mode(path)}: {reason}; it should hold the"
        " controller's token (controller.auth.token_path) and belong to"
        f" root:{CREDENTIAL_GROUP}, mode 0440; or, in a cloud, set the instance's"
        " attribute miglet-controller-token"
    )


def owner_and_mode(path: str | Path) -> str:
    """E.g. `` (root:root, mode 0600)``; nothing where that cannot be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    user, group = str(found.st_uid), str(found.st_gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(found.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f" ({user}:{group}, mode {stat.S_IMODE(found.st_mode):04o})"


def credential_for(auth: Any) -> Credential:
    """The credential that the settings under ``controller.auth`` describe."""
    return BearerToken(auth.token_path) if auth.type == "bearer" else NoToken()
