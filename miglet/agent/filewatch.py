"""Notices that a file has changed, by looking at it now and then."""

from __future__ import annotations

import os


class FileWatch:
    """A file that may come, go and change; its first look is at its making."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether it is another file, or another content, than at the last look."""
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
