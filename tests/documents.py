"""The documents as tests see them: their blocks, and what covers each block.

A block of code has its language in ``.. code-block::``. What runs it is said

* by a comment above it, ``.. run by tests/…::test_…`` (several, if need be);
* or, where nothing can run it here, by the words "Not run by our tests" in the text
  above, which then hold to the end of that section, or at the end of its line.

A comment ``.. schema: NAME`` names the contract's schema of a block of JSON. Where a
worked example goes is said by ``.. append to FILE``, ``.. new file FILE``,
``.. insert in FILE before: TEXT`` or ``.. replace in FILE: TEXT``.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

#: Every document that is written by hand or printed, the manual pages among them.
DOCUMENTS = [
    *(ROOT / name for name in ("README.rst", "CONTRIBUTING.rst")),
    *sorted({*(ROOT / "docs").rglob("*.rst")} - {*(ROOT / "docs/reference").glob("*")}),
]

DIRECTIVE = re.compile(r"^( *)\.\. code-block:: (\w+)$")
#: A paragraph whose literal block follows; the manual pages have shell in those.
LITERAL = re.compile(r"^( *)(?!\.\. ).*::$")
COMMENT = re.compile(
    r"^ *\.\. (run by|schema:|append to|new file|insert in|replace in) (.+)$"
)
UNDERLINE = re.compile(r"^([=~^-])\1{2,}$")

NOT_RUN = re.compile("not run by our tests", re.IGNORECASE)

#: A document that a shell command writes.
HERE_DOCUMENT = re.compile(r"<<-?EOF.*?\n(.*?)^EOF\n", re.DOTALL | re.MULTILINE)

#: Of these comments, those that say where an example is to be written.
PLACES = ("append to", "new file", "insert in", "replace in")

#: Words before a command that are not its name.
BEFORE = ("sudo", "exec")


@dataclass(frozen=True)
class Block:
    """A block of code in a document."""

    document: Path
    line: int
    #: The title of the section that it is in.
    section: str
    language: str
    text: str
    #: Whether the text above says that nothing runs it.
    not_run: bool
    #: The comments above it, by what they begin with.
    notes: dict[str, str]

    @property
    def tests(self) -> list[str]:
        """The tests that run it, as pytest names them."""
        return re.findall(r"tests/\S+?::\w+", self.notes.get("run by", ""))

    @property
    def schema(self) -> str:
        """The name of the contract's schema that it is an example of, or nothing."""
        return self.notes.get("schema:", "")

    @property
    def place(self) -> tuple[str, str] | None:
        """How a worked example is written, and where."""
        places = [(how, where) for how, where in self.notes.items() if how in PLACES]
        return places[0] if places else None

    def __str__(self) -> str:
        return f"{name_of(self.document)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a block of shell."""

    block: Block
    #: As it is written, without its comment.
    text: str
    not_run: bool

    @property
    def words(self) -> list[str]:
        """Its words, up to the first pipe or redirection."""
        words = split(self.text)
        while words[0] in BEFORE:
            del words[0]
        ends = [n for n, word in enumerate(words) if re.match(r"[|<>]", word)]
        return words[: ends[0]] if ends else words

    @property
    def program(self) -> str:
        """The name of what is run."""
        return Path(self.words[0]).name

    def __str__(self) -> str:
        return f"{self.block}: {self.text}"


def name_of(document: Path) -> str:
    """The document's path in the repository."""
    return str(document.relative_to(ROOT))


def blocks(document: Path) -> list[Block]:
    """Every block of a document, in order."""
    return list(_blocks(document, document.read_text().splitlines()))


def _blocks(document: Path, lines: list[str]) -> Iterator[Block]:
    levels: list[str] = []
    #: The depth of the section in which something said "not run"; it holds below.
    not_run_below: int | None = None
    section = ""
    notes: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        following = lines[number] if number < len(lines) else ""
        if (rule := UNDERLINE.match(following)) and len(following) >= len(line) > 0:
            section, depth = line, _depth(levels, rule[1])
            if not_run_below is not None and depth <= not_run_below:
                not_run_below = None
            number += 1
            continue
        if NOT_RUN.search(line):
            not_run_below = len(levels)
        if note := COMMENT.match(line):
            notes[note[1]] = note[2]
            continue
        found = DIRECTIVE.match(line) or LITERAL.match(line)
        if not found:
            if line.strip():
                notes.clear()
            continue
        body, end = _body(lines, number, len(found[1]))
        yield Block(
            document,
            number,
            section,
            found[2] if found.re is DIRECTIVE else "",
            body,
            not_run_below is not None,
            notes,
        )
        notes = {}
        number = end


def _depth(levels: list[str], rule: str) -> int:
    """The depth of a section, from how its title is underlined."""
    if rule in levels:
        del levels[levels.index(rule) + 1 :]
    else:
        levels.append(rule)
    return len(levels)


def _body(lines: list[str], start: int, indent: int) -> tuple[str, int]:
    """The lines that are indented deeper, and the number of the first that is not."""
    end = start
    while end < len(lines) and (
        not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent
    ):
        end += 1
    return textwrap.dedent("\n".join(lines[start:end])).strip("\n") + "\n", end


def commands(block: Block) -> list[Command]:
    """The commands of a block of shell; those joined by && are one each."""
    text = HERE_DOCUMENT.sub("\n", block.text).replace("\\\n", " ")
    found = []
    for line in filter(str.strip, _whole_lines(text)):
        bare, _, comment = line.partition(" #")
        not_run = block.not_run or bool(NOT_RUN.search(comment))
        for part in re.split(r" && |; ", bare):
            if part.strip():
                found.append(Command(block, " ".join(part.split()), not_run))
    return found


def _whole_lines(text: str) -> Iterator[str]:
    """The lines of shell, those with an open quotation joined with what follows."""
    open_lines = ""
    for line in text.splitlines():
        open_lines = f"{open_lines}\n{line}" if open_lines else line
        bare = open_lines.partition(" #")[0]
        try:
            shlex.split(bare)
        except ValueError:
            continue
        yield open_lines
        open_lines = ""


def split(text: str) -> list[str]:
    """The words of a command; pipes and redirections are words of their own."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|<>;")
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)
