"""What a person watches: one line for each thing that happens, and what is waited for.

Colours and a line that changes in place are for a terminal; elsewhere, or where
NO_COLOR is set (https://no-color.org), the same is plain text.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
#: A wait that lasts longer is shown.
SHOWN_AFTER_SECONDS = 2.0
CLEAR_LINE = "\r\x1b[K"


class Terminal:
    """Writes to `out`, in colours if that is a terminal that wants them."""

    def __init__(
        self, out: TextIO = sys.stdout, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._out = out
        self._live = out.isatty() and environment.get("TERM") != "dumb"
        self._colours = self._live and not environment.get("NO_COLOR")
        self._quiet_since = time.monotonic()
        #: What is shown of the present wait.
        self._shown = ""

    def styled(self, text: str, style: str) -> str:
        """`text` in a style; as it is where there are no colours."""
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self._colours else text

    def line(self, text: str = "") -> None:
        """One line, in the place of what was shown of a wait."""
        self._erase()
        self._out.write(f"{text}\n")
        self._out.flush()
        self._quiet_since = time.monotonic()
        self._shown = ""

    def say(self, who: str, text: str, style: str = "dim") -> None:
        """One line about somebody, with the time."""
        clock = self.styled(time.strftime("%H:%M:%S"), "dim")
        self.line(f"{clock}  {self.styled(f'{who:<10}', style)}  {text}")

    def waiting(self, what: str) -> None:
        """Show what is waited for, once nothing was to be seen for two seconds.

        To be called again and again: a terminal shows the seconds, anything else gets
        one line for each thing.
        """
        seconds = time.monotonic() - self._quiet_since
        if seconds < SHOWN_AFTER_SECONDS:
            return
        if self._live:
            self._erase()
            self._shown = what
            self._out.write(self.styled(f"          … {what} ({seconds:.0f} s)", "dim"))
            self._out.flush()
        elif self._shown != what:
            self._shown = what
            self._out.write(f"          ... {what}\n")
            self._out.flush()

    def until(self, condition: Callable[[], bool], what: str, seconds: float) -> bool:
        """Wait for a condition and show what is waited for; whether it came true."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= deadline:
                return False
            self.waiting(what)
            select.select([], [], [], 0.05)
        return True

    def _erase(self) -> None:
        if self._live and self._shown:
            self._out.write(CLEAR_LINE)
