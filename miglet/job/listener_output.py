"""The Listener's own output: followed through rotations, and parsed line by line.

A job's name is its author's text, is printed raw and may contain newlines, so any line
may be the author's. A line is therefore only a claim, and the result of a job is taken
from what is printed after its Worker's end (see `verdict`).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from miglet.formats import parse_rfc3339
from miglet.job import signs
from miglet.job.signs import Sign, clip
from miglet.job.tail import Budget, Followed, Lines, readable
from miglet.redaction import redact
from miglet.safefile import open_plain

#: What one call reads at most: a flood cannot hold the reader for long.
BUDGET_BYTES = 262144
_KEPT_LINES = 50

#: What `last_lines` gives at most, of a line and of all, in bytes of their JSON form:
#: they travel in a message of limited size.
LAST_LINE_BYTES = 1024
LAST_LINES_BYTES = 12 * 1024

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"
_STAMPED = re.compile(rf"({STAMP}): (.*)")

#: Makes a sign of when it was, its source, and what a pattern has matched.
Maker = Callable[[float, str, "re.Match[str]"], Sign]


def bare(sign: type[Sign]) -> Maker:
    """Makes signs that carry nothing but their time."""
    return lambda at, source, _: sign(at, source)


def quoted(sign: Callable[[float, str, str], Sign]) -> Maker:
    """Makes signs that carry what the first group matched."""
    return lambda at, source, match: sign(at, source, clip(match[1]))


def _named(at: float, source: str, match: re.Match[str]) -> Sign:
    return signs.JobRunning(at, source, clip(match[1], 512))


def table(*rows: tuple[str, Maker]) -> list[tuple[re.Pattern[str], Maker]]:
    """Patterns, tried in this order, and what each makes."""
    return [(re.compile(pattern, re.DOTALL), make) for pattern, make in rows]


#: Lines that begin with a time stamp (actions/runner Runner.cs, JobDispatcher.cs,
#: BrokerMessageListener.cs).
_AFTER_STAMP = table(
    (r"Listening for Jobs", bare(signs.Listening)),
    (r"Running job: (.*)", _named),
    (r"Runner connect error: (.*)", quoted(signs.ConnectError)),
    (r"Runner reconnected\.", bare(signs.Reconnected)),
)
#: Lines without one. "occured" is how it was spelt up to 2.332.
_BARE = table(
    (r"Current runner version: '([^']+)'", quoted(signs.RunnerVersion)),
    (r"A session for this runner already exists\.", bare(signs.SessionConflict)),
    (
        r"(?:An error occurr?ed: |Failed to create session\. )"
        r"(.*is deprecated and cannot receive messages.*)",
        quoted(signs.VersionDeprecated),
    ),
    (r"An error occurr?ed: Not configured\b.*", bare(signs.NotConfigured)),
    (r"An error occurr?ed: (.*)", quoted(signs.RunnerFailed)),
    (
        r"(Failed to create a session\. The runner registration has been deleted.*)",
        quoted(signs.RegistrationGone),
    ),
    (
        r"(The runner no longer exists on the server\..*)",
        quoted(signs.RegistrationGone),
    ),
    (r"(Failed to create session\. .*)", quoted(signs.RunnerFailed)),
    (r"(Fail to create and validate runner's work .*)", quoted(signs.RunnerFailed)),
    (r"(The local machine's clock may be out of .*)", quoted(signs.ConnectError)),
    (r"√ Removed \.runner", bare(signs.RegistrationRemoved)),
    (r"Runner update in progress, do not shutdown runner\.", bare(signs.Updating)),
)
_BARE_BEGINNINGS = ("Current", "A", "F", "T", "√", "Runner update")
#: Not anchored at the beginning: with a name of two lines this is the second line.
_RESULT = re.compile(
    rf".* completed with result: ({'|'.join(signs.RESULTS)})", re.DOTALL
)


def parse_line(text: str, seen: float, source: str = "output") -> Sign | None:
    """What a line of the Listener's output says, or None.

    The sign's time is the line's own where it has one, else `seen`.
    """
    stamped = _STAMPED.fullmatch(text)
    at = parse_rfc3339(stamped[1]) if stamped else None
    result = _RESULT.fullmatch(text)
    if result:
        return signs.JobResult(seen if at is None else at, source, result[1])
    if stamped:
        return _first(_AFTER_STAMP, stamped[2], seen if at is None else at, source)
    if text.startswith(_BARE_BEGINNINGS):
        return _first(_BARE, text, seen, source)
    return None


def _first(
    table: list[tuple[re.Pattern[str], Maker]], text: str, at: float, source: str
) -> Sign | None:
    for pattern, make in table:
        match = pattern.fullmatch(text)
        if match:
            return make(at, source, match)
    return None


class Tail:
    """Reads a growing file from its beginning, across `path` becoming `path.1`.

    The file is read as bytes, a bounded piece a call and within `budget` as a whole;
    what was in the older file comes first, and a line may go on from there.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._budget = budget
        self._lines = Lines()
        self._file: Followed | None = None
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self._version: str | None = None
        #: Whether the last call left something unread: call again.
        self.behind = False

    def read(self, seen: float) -> list[Sign]:
        """The signs in what is new; `seen` is the wall time for lines without one."""
        found = (self._parse(raw, seen) for raw in self._fresh_lines())
        return [sign for sign in found if sign]

    def finish(self, seen: float) -> list[Sign]:
        """The signs at the very end, when the writer is gone.

        That is what a spent budget has left unread, and a line without its end.
        """
        found = []
        if self._file and self._file.jump_to_end():
            self._lines.resynchronize()
            found = self.read(seen)
        sign = self._parse(self._lines.rest(), seen)
        return [*found, sign] if sign else found

    def last_lines(self, count: int) -> list[str]:
        """The newest lines that were not empty, without secrets; see LAST_LINES_BYTES.

        Redacted as a whole, for a secret may have more than one line.
        """
        if not self._last:
            return []
        lines = redact("\n".join(self._last)).split("\n")[-count:]
        return clip_lines(lines, LAST_LINE_BYTES, LAST_LINES_BYTES)

    def close(self) -> None:
        """Give the file back."""
        if self._file:
            self._file.close()
            self._file = None

    def _fresh_lines(self) -> Iterator[bytes]:
        budget = BUDGET_BYTES
        self.behind = False
        while self._file or self._go_on():
            assert self._file
            for chunk in self._file.chunks(budget):
                budget -= len(chunk)
                yield from self._lines.feed(chunk)
            if budget <= 0 or not self._go_on():
                break
        self.behind = budget <= 0

    def _go_on(self) -> bool:
        """Go on to the file after the present one, if that one is complete."""
        following = self._successor()
        if following is None:
            return False
        if self._file and not self._file.exhausted():
            following.close()
            return True
        self.close()
        self._file = following
        return True

    def _successor(self) -> Followed | None:
        """The file that was written next; opened in an order that tolerates renames."""
        newest = _followed(self._path, self._budget)
        older = _followed(self._older, self._budget)
        held = self._file.inode if self._file else None
        candidates = [file for file in (older, newest) if file]
        if newest and newest.inode == held:
            chosen = None
        else:
            chosen = next((file for file in candidates if file.inode != held), None)
        for file in candidates:
            if file is not chosen:
                file.close()
        return chosen

    def _parse(self, raw: bytes, seen: float) -> Sign | None:
        text = readable(raw)
        if text:
            self._last.append(text)
        sign = parse_line(text, seen)
        if isinstance(sign, signs.RunnerVersion):
            self._version = sign.version
        if isinstance(sign, signs.Listening):
            return replace(sign, version=self._version)
        return sign


def clip_lines(lines: list[str], line_bytes: int, total_bytes: int) -> list[str]:
    """The last of `lines` that fit, each cut to `line_bytes` of its JSON form."""
    kept: list[str] = []
    for line in reversed(lines):
        clipped = _clip(line, line_bytes)
        total_bytes -= _json_bytes(clipped) + 1
        if total_bytes < 0:
            break
        kept.append(clipped)
    return kept[::-1]


def _clip(line: str, limit_bytes: int) -> str:
    """The beginning of `line` that fits: no character takes more than 12 bytes."""
    if _json_bytes(line) <= limit_bytes:
        return line
    shortest, longest = 0, limit_bytes
    while shortest < longest:
        length = (shortest + longest + 1) // 2
        if _json_bytes(line[:length]) + len("...") <= limit_bytes:
            shortest = length
        else:
            longest = length - 1
    return line[:shortest] + "..."


def _json_bytes(text: str) -> int:
    return len(json.dumps(text))


def _followed(path: Path, budget: Budget) -> Followed | None:
    try:
        return Followed(open_plain(path), budget)
    except OSError:
        return None
