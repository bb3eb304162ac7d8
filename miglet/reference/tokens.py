"""Files of secrets: bearer tokens of callers, tokens for runners.

One token a line. A file is read anew when it has changed, so tokens can be rotated
while the controller runs; a file that is gone or empty means that there is none.
"""

from __future__ import annotations

import hmac
import logging
from pathlib import Path

log = logging.getLogger(__name__)


class TokenFile:
    """The tokens in a file, as they are now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: list[str] = []
        self._turn = 0

    def tokens(self) -> list[str]:
        """Every token in the file; none if it cannot be read, which is logged once."""
        stamp = self._stat()
        if stamp != self._stamp:
            self._tokens = self._read()
            self._stamp = stamp
        return self._tokens

    def accepts(self, offered: str) -> bool:
        """Whether `offered` is one of the tokens, in a time that tells nothing."""
        given = offered.encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(given, t.encode()) for t in self.tokens()]
        return any(matches)

    def next_in_turn(self) -> str | None:
        """The tokens one after the other and round again; None if there is none."""
        tokens = self.tokens()
        if not tokens:
            return None
        self._turn += 1
        return tokens[(self._turn - 1) % len(tokens)]

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _read(self) -> list[str]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            log.warning("no tokens in %s: %s", self.path, type(error).__name__)
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]
