"""The runner's own logs, `_diag/Runner_*.log` and `_diag/Worker_*.log`.

They belong to the job's user and may be missing, huge or forged: a bounded number is
followed, a bounded piece a call, and what they say is a sign among others. First the
job message that the Worker logs, then the lines that mean something, then the files.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from miglet.formats import parse_rfc3339
from miglet.job import signs
from miglet.job.listener_output import (
    BUDGET_BYTES,
    STAMP,
    bare,
    parse_line,
    quoted,
    table,
)
from miglet.job.signs import Sign, identity_of
from miglet.job.tail import (
    FILE_BUDGET_BYTES,
    Budget,
    Followed,
    Lines,
    readable,
)
from miglet.messages.events import JobIdentity
from miglet.safefile import open_folder, open_plain

# The job message, reduced to the job's identity.
#
# The runner masks secrets in it, also where they are part of the JSON itself: with a
# secret `true` or `{` it does not parse. It is indented by two, and no value breaks its
# line, so each part of the identity is found by its own line, by its depth and by the
# section around it (actions/runner Worker.cs, "Job message:").

#: What is looked at of one message; a real one has some hundred kilobytes at most.
MESSAGE_LIMIT_BYTES = 4 << 20

_MASK = "***"
#: A quotation mark, or what masking makes of each when it is a secret.
_QUOTE = r"(?:\"|\*\*\*)"

_MESSAGE_END = re.compile(r"(?:\}|\*\*\*)\s*")
_TOP_KEY = re.compile(rf" {{2}}{_QUOTE}(\w+){_QUOTE}: ?(.*)")
_SECTION_KEY = re.compile(rf" {{4}}{_QUOTE}(\w+){_QUOTE}: ")
_PAIR_KEY = re.compile(rf" {{10}}{_QUOTE}k{_QUOTE}: {_QUOTE}(\w+){_QUOTE},")
#: The runner writes numbers as doubles (`4242.0`).
_PAIR_NUMBER = re.compile(rf" {{10}}{_QUOTE}v{_QUOTE}: (\d{{1,20}})(?:\.0)?")
#: With masked quotation marks nobody can tell where a text begins: none is taken.
_PAIR_TEXT = re.compile(r' {10}"v": ("(?:[^"\\]|\\.)*"),?')
_JSON_TEXT = re.compile(r'("(?:[^"\\]|\\.)*"),?')
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

#: Keys of the identity in each section of `contextData`.
_WANTED = {
    "job": {"check_run_id": "job_id"},
    "github": {
        "run_id": "run_id",
        "run_attempt": "run_attempt",
        "repository": "repository",
        "workflow": "workflow",
        "ref": "ref",
        "sha": "commit",
        "actor": "actor",
        "event_name": "event_name",
    },
}


class JobMessage:
    """Takes a message line by line; `identity` is what has been found so far."""

    def __init__(self) -> None:
        self._values: dict[str, object] = {}
        self._top = ""
        self._section = ""
        #: The part of the identity whose value the next line has.
        self._awaited: str | None = None
        self._room = MESSAGE_LIMIT_BYTES
        #: Whether the message is over, or longer than any real one.
        self.ended = False
        #: Whether the job's name would take more than one line where it is printed.
        self.name_has_newlines = False

    @property
    def identity(self) -> JobIdentity:
        """The job as the message describes it, checked and cut."""
        return identity_of(self._values)

    def add(self, raw: bytes) -> None:
        """Look at the next line."""
        line = raw.decode("utf-8", "replace")
        self._room -= len(raw) + 1
        self.ended = self._room < 0 or bool(_MESSAGE_END.fullmatch(line))
        awaited, self._awaited = self._awaited, None
        if awaited:
            self._keep(awaited, line)
        elif line.startswith(" " * 10):
            self._await(line)
        elif line.startswith("    ") and line[4:5] not in ("", " ", "}", "]"):
            found = _SECTION_KEY.match(line)
            self._section = found[1] if found and self._top == "contextData" else ""
        elif line.startswith("  ") and line[2:3] not in (" ", "}", "]"):
            self._enter(line)

    def _enter(self, line: str) -> None:
        found = _TOP_KEY.match(line)
        self._top, self._section = found[1] if found else "", ""
        if found and found[1] == "jobDisplayName":
            self.name_has_newlines = "\\n" in found[2] or "\\r" in found[2]
            name = _JSON_TEXT.fullmatch(found[2])
            self._values["name"] = _decode(name[1]) if name else None

    def _await(self, line: str) -> None:
        found = _PAIR_KEY.fullmatch(line)
        self._awaited = _WANTED.get(self._section, {}).get(found[1]) if found else None

    def _keep(self, name: str, line: str) -> None:
        number, text = _PAIR_NUMBER.fullmatch(line), _PAIR_TEXT.fullmatch(line)
        if number:
            self._values.setdefault(name, number[1])
        elif text and _MASK not in text[1]:
            self._values.setdefault(name, _checked(name, _decode(text[1])))


def _checked(name: str, value: str | None) -> str | None:
    if name == "repository" and not _REPOSITORY.fullmatch(value or ""):
        return None
    return value


def _decode(literal: str) -> str | None:
    """The text of a JSON string; None where the line was cut within an escape."""
    try:
        return str(json.loads(literal))
    except ValueError:
        return None


# Lines that mean something, each taken by itself. A release may change their wording:
# what is not understood is no sign.

_LINE = re.compile(rf"\[({STAMP}) (CRIT|ERR |WARN|INFO|VERB) ([^\]]+)\] (.*)")
_WRITTEN = re.compile(r"WRITE (?:LINE|ERROR): (.*)", re.DOTALL)
_NO_SPACE = "No space left on device"
_FAULTS = ("CRIT", "ERR ")


def _worker_ended(at: float, source: str, match: re.Match[str]) -> Sign:
    return signs.WorkerEnded(at, source, int(match[1]))


def _result(at: float, source: str, match: re.Match[str]) -> Sign:
    return signs.JobResult(at, source, match[1])


_RESULT = "|".join(signs.RESULTS)
#: Which lines mean something in which log (actions/runner Listener/JobDispatcher.cs,
#: Listener/Runner.cs, Worker/Worker.cs, Worker/StepsRunner.cs).
_MEANINGS = {
    "runner_log": table(
        (r"Version: (\d[\w.+-]*)$", quoted(signs.RunnerVersion)),
        (r"Acknowledging runner request '", bare(signs.JobRequested)),
        (r"Job request \S+ for plan \S+ job \S+ received\.", bare(signs.JobRequested)),
        (r"(Skipping message Job\..*)", quoted(signs.JobSkipped)),
        (r"Worker finished for job \S+\. Code: (-?\d{1,9})\b", _worker_ended),
        (rf"finish job request for job \S+ with result: ({_RESULT})\b", _result),
        (r"Runner will be shutdown for \w+", bare(signs.ShutdownSignalled)),
        (r"Runner OAuth token has been revoked", bare(signs.OAuthRevoked)),
    ),
    "worker_log": table(
        (r"Message received\.", bare(signs.JobReceived)),
        (r"Runner will be shutdown for \w+", bare(signs.ShutdownReceived)),
        (r"Processing step: DisplayName=", bare(signs.StepsBegan)),
        (r"Cancellation/Shutdown message received", bare(signs.CancelReceived)),
        (rf"Job result after all job steps finish: ({_RESULT})\b", _result),
    ),
}


def parse_log_line(text: str, seen: float, source: str) -> Sign | None:
    """What a line of the Listener's or the Worker's log says, or None."""
    match = _LINE.match(text)
    if not match:
        # The further lines of an exception, or of a name that contains newlines.
        return (
            signs.DiskFull(seen, source)
            if _NO_SPACE in text
            else _printed(text, seen, source)
        )
    stamp, level, component, said = match.groups()
    at = parse_rfc3339(stamp) or seen
    if _NO_SPACE in said and level in _FAULTS:
        return signs.DiskFull(at, source)
    written = _WRITTEN.match(said) if component == "Terminal" else None
    if written:
        return parse_line(written[1], at, source)
    for pattern, make in _MEANINGS[source]:
        meaning = pattern.match(said)
        if meaning:
            return make(at, source, meaning)
    return None


def _printed(text: str, seen: float, source: str) -> Sign | None:
    """The last line of a result that was printed for a name of several lines."""
    sign = parse_line(text, seen, source) if source == "runner_log" else None
    return sign if isinstance(sign, signs.JobResult) else None


# The files.

#: How many logs of one kind are followed in one run: one each, and their next pages.
_LOGS = 8
#: How many entries of the folder are looked at: about 0.1 s of work.
_ENTRIES = 65536
_STABLE_SECONDS = 0.1
#: How many logs of earlier runs are remembered with a run.
_EARLIER = 512

_LOG_NAME = re.compile(
    r"(Runner|Worker)_(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)-utc\.log"
)
_MESSAGE = re.compile(rb"\[[^\]]{20,80}\] Job message:\s*(.*)", re.DOTALL)
_PREFIX = re.compile(rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ ")


class Log:
    """One log file, read from `offset` on."""

    def __init__(
        self, descriptor: int, source: str, budget: Budget, offset: int = 0
    ) -> None:
        self._file = Followed(descriptor, budget, offset)
        self._source = source
        self._lines = Lines()
        self._message: JobMessage | None = None
        self._messages_left = 1 if source == "worker_log" else 0
        self._steps_left = True
        self.behind = False

    def read(self, seen: float) -> Iterator[Sign]:
        """The signs in what is new, as far as one call's budget goes."""
        for chunk in self._file.chunks(BUDGET_BYTES):
            for raw in self._lines.feed(chunk):
                yield from self._parse(raw, seen)
        self.behind = not self._file.exhausted()

    def finish(self, seen: float) -> Iterator[Sign]:
        """The signs at the end of a log that is longer than what is read of one."""
        if self._file.jump_to_end():
            self._lines.resynchronize()
            yield from self.read(seen)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _parse(self, raw: bytes, seen: float) -> Iterator[Sign]:
        if self._message:
            if not _PREFIX.match(raw):
                yield from self._continue_message(raw, seen)
                return
            yield from self._end_message(seen)
        begun = _MESSAGE.match(raw) if self._messages_left else None
        if begun:
            self._messages_left -= 1
            self._message = JobMessage()
            yield from self._continue_message(begun[1], seen)
            return
        sign = parse_log_line(readable(raw), seen, self._source)
        if sign and self._is_news(sign):
            yield sign

    def _continue_message(self, raw: bytes, seen: float) -> Iterator[Sign]:
        assert self._message
        self._message.add(raw)
        if self._message.ended:
            yield from self._end_message(seen)

    def _end_message(self, seen: float) -> Iterator[Sign]:
        assert self._message
        message, self._message = self._message, None
        identity = message.identity
        if message.name_has_newlines:
            yield signs.NameOfSeveralLines(seen, self._source)
        if identity != JobIdentity():
            yield signs.JobIdentified(seen, self._source, identity)

    def _is_news(self, sign: Sign) -> bool:
        """The first of a job's many steps is reported, the others are not."""
        if isinstance(sign, signs.StepsBegan):
            first, self._steps_left = self._steps_left, False
            return first
        return True


class DiagFolder:
    """The logs in `_diag` that were begun since the run started.

    Their names tell only the second: what another run had written by then (`earlier`,
    the sizes of its logs) is not read again. `started_at` is asked at every look,
    because a clock that is set back takes the names of later logs with it.
    """

    def __init__(
        self,
        path: Path,
        started_at: Callable[[], float],
        budget: Budget,
        earlier: Mapping[str, int] | None = None,
    ) -> None:
        self._path = path
        self._earlier = earlier or {}
        self._started_at = started_at
        self._since = math.inf
        self._budget = budget
        self._folder: int | None = None
        self._logs: dict[str, Log] = {}
        self._scanned_ns = -1
        #: Whether the last call left something unread: call again.
        self.behind = False

    def read(self, seen: float) -> list[Sign]:
        """The signs in what is new in all logs, the Listener's first."""
        found = self._find_logs(seen)
        for log in self._logs.values():
            found += log.read(seen)
        self.behind = any(log.behind for log in self._logs.values())
        return found

    def finish(self, seen: float) -> list[Sign]:
        """The signs at the ends of logs that are longer than what is read of one."""
        return [sign for log in self._logs.values() for sign in log.finish(seen)]

    @property
    def is_readable(self) -> bool:
        """Whether a log of the Listener was found, so that one could be missed."""
        return any(name.startswith("Runner") for name in self._logs)

    def close(self) -> None:
        """Close all files."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _find_logs(self, seen: float) -> list[Sign]:
        found: list[Sign] = []
        for name in self._new_names(seen):
            kind = name.split("_")[0]
            if sum(known.startswith(kind) for known in self._logs) >= _LOGS:
                continue
            if self._follow(name, f"{kind.lower()}_log") and kind == "Worker":
                at = _begun_at(name) or seen
                found.append(signs.WorkerStarted(at, "worker_log"))
        return found

    def _new_names(self, seen: float) -> list[str]:
        self._since = min(self._since, int(self._started_at()))
        try:
            folder = self._opened()
            # A log that another run has begun grows without a change of the folder.
            names = list(self._earlier)
            if self._has_changed(folder, seen):
                with os.scandir(folder) as entries:
                    names = [entry.name for entry in islice(entries, _ENTRIES)]
        except OSError:
            return []
        return sorted(name for name in names if self._is_new(name))

    def _opened(self) -> int:
        """The folder, opened anew when it was deleted and made again."""
        if self._folder is not None and os.fstat(self._folder).st_nlink == 0:
            os.close(self._folder)
            self._folder = None
        if self._folder is None:
            self._folder = open_folder(self._path)
            self._scanned_ns = -1
        return self._folder

    def _has_changed(self, folder: int, seen: float) -> bool:
        changed_ns = os.fstat(folder).st_mtime_ns
        if changed_ns == self._scanned_ns:
            return False
        # Two changes within one tick of the clock look like one: look again later.
        stable = abs(seen - changed_ns / 1e9) > _STABLE_SECONDS
        self._scanned_ns = changed_ns if stable else -1
        return True

    def _is_new(self, name: str) -> bool:
        begun = None if name in self._logs else _begun_at(name)
        if begun is None or begun < self._since:
            return False
        return name not in self._earlier or self._has_grown(name)

    def _has_grown(self, name: str) -> bool:
        """Whether somebody went on writing a log that was begun before."""
        try:
            size = os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_size
        except OSError:
            return False
        return size > self._earlier[name]

    def _follow(self, name: str, source: str) -> bool:
        try:
            descriptor = open_plain(name, self._folder)
            budget = Budget(FILE_BUDGET_BYTES, self._budget)
            self._logs[name] = Log(
                descriptor, source, budget, self._earlier.get(name, 0)
            )
        except OSError:
            return False
        return True


def diag_folder(directory: Path) -> Path:
    """Where the runner in `directory` is going to write its logs.

    An administrator may have put a link to another disk there. It is followed now,
    before the runner starts, and never again: the next one may be a job's.
    """
    path = directory / "_diag"
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def existing_logs(path: Path) -> dict[str, int]:
    """The newest logs in `path`, with their sizes: none of them is of a run to come."""
    found = {}
    try:
        with os.scandir(path) as entries:
            for entry in islice(entries, _ENTRIES):
                if _begun_at(entry.name) is not None:
                    found[entry.name] = entry.stat(follow_symlinks=False).st_size
    except OSError:
        pass
    newest = sorted(found, key=lambda name: name.partition("_")[2])[-_EARLIER:]
    return {name: found[name] for name in newest}


def _begun_at(name: str) -> float | None:
    """When the log was begun, by its name; None where the name is no log's."""
    match = _LOG_NAME.fullmatch(name)
    if not match:
        return None
    _, year, month, day, hour, minute, second = match.groups()
    return parse_rfc3339(f"{year}-{month}-{day} {hour}:{minute}:{second}Z")
