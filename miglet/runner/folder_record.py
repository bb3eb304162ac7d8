"""What root remembers of the runner's folder, where no job can change it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from miglet.runner.installation import (
    MIGRATED_FILES,
    REGISTRATION_FILES,
    SMALL_BYTES,
)
from miglet.runner.ownership import same_user, weakness
from miglet.safefile import read_small
from miglet.supervisor.privileges import Account


class FolderRecord:
    """What root remembers of the runner's folder: in ``paths.state``, where no job is.

    The registration's files are the runner's own; a job could change the address in
    them that `config.sh remove` sends its token to.
    """

    def __init__(self, state: Path, directory: Path) -> None:
        self._directory = directory
        self._job = state / "job-has-run"
        self._digest = state / "registration.sha256"
        self._seen = False

    def note_job(self) -> None:
        """A job runs, or has run, in the folder."""
        if not self._seen:
            self._seen = True
            with suppress(OSError):
                self._job.touch(mode=0o600)

    def note_registration(self) -> None:
        """The registration's files are those that were made for us."""
        with suppress(OSError):
            self._digest.write_text(self._present_digest())

    def danger(self, account: Account | None, removing: bool) -> str:
        """Why no token may be given to a program in the folder; empty: it may."""
        if same_user(account) or not (self._seen or self._job.exists()):
            return ""
        weak = weakness(self._directory)
        if weak:
            return f"a job has run there, and {weak}"
        if removing and not self._is_registration_ours():
            return "a job has changed the files of the registration"
        return ""

    def _is_registration_ours(self) -> bool:
        try:
            return self._digest.read_text() == self._present_digest()
        except OSError:
            return False

    def _present_digest(self) -> str:
        digest = hashlib.sha256()
        for name in (*REGISTRATION_FILES, *MIGRATED_FILES):
            content = b""
            with suppress(OSError, ValueError):
                content = read_small(self._directory / name, SMALL_BYTES)
            digest.update(b"%d:%b" % (len(content), content))
        return digest.hexdigest()
