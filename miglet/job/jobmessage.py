"""The job message that the Worker writes into its log, reduced to the job's identity.

The runner masks secrets in it, also where they are part of the JSON itself: with a
secret ``true`` or ``{`` it does not parse. It is indented by two, and no value breaks
its line, so each part of the identity is found by its own line, by its depth and by
the section around it (actions/runner Worker.cs, "Job message:").
"""

from __future__ import annotations

import json
import re

from miglet.job.signs import JobIdentity, identity_of

#: What is looked at of one message; a real one has some hundred kilobytes at most.
LIMIT_BYTES = 4 << 20

_MASK = "***"
#: A quotation mark, or what masking makes of each when it is a secret.
_QUOTE = r"(?:\"|\*\*\*)"

_END = re.compile(r"(?:\}|\*\*\*)\s*")
_TOP = re.compile(rf" {{2}}{_QUOTE}(\w+){_QUOTE}: ?(.*)")
_SECTION = re.compile(rf" {{4}}{_QUOTE}(\w+){_QUOTE}: ")
_KEY = re.compile(rf" {{10}}{_QUOTE}k{_QUOTE}: {_QUOTE}(\w+){_QUOTE},")
#: The runner writes numbers as doubles (`4242.0`).
_NUMBER = re.compile(rf" {{10}}{_QUOTE}v{_QUOTE}: (\d{{1,20}})(?:\.0)?")
#: With masked quotation marks nobody can tell where a text begins: none is taken.
_TEXT = re.compile(r' {10}"v": ("(?:[^"\\]|\\.)*"),?')
_NAME = re.compile(r'("(?:[^"\\]|\\.)*"),?')
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
        self._room = LIMIT_BYTES
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
        self.ended = self._room < 0 or bool(_END.fullmatch(line))
        awaited, self._awaited = self._awaited, None
        if awaited:
            self._keep(awaited, line)
        elif line.startswith(" " * 10):
            self._await(line)
        elif line.startswith("    ") and line[4:5] not in ("", " ", "}", "]"):
            found = _SECTION.match(line)
            self._section = found[1] if found and self._top == "contextData" else ""
        elif line.startswith("  ") and line[2:3] not in (" ", "}", "]"):
            self._enter(line)

    def _enter(self, line: str) -> None:
        found = _TOP.match(line)
        self._top, self._section = found[1] if found else "", ""
        if found and found[1] == "jobDisplayName":
            self.name_has_newlines = "\\n" in found[2] or "\\r" in found[2]
            name = _NAME.fullmatch(found[2])
            self._values["name"] = _decode(name[1]) if name else None

    def _await(self, line: str) -> None:
        found = _KEY.fullmatch(line)
        self._awaited = _WANTED.get(self._section, {}).get(found[1]) if found else None

    def _keep(self, name: str, line: str) -> None:
        number, text = _NUMBER.fullmatch(line), _TEXT.fullmatch(line)
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
