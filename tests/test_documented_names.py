"""Every name of ours in the documents exists: settings, events, codes, statuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from miglet import errors
from miglet.config.schema import KEYS
from miglet.lifecycle.shutdown import SET_ASIDE
from tests.cases import check_each
from tests.documents import DOCUMENTS
from tests.paths import ROOT

LITERAL = re.compile(r"``([^`\n]+)``")
SETTING = re.compile(r"(?:``|\*)([a-z_]+(?:\.[a-z0-9_]+)+)[`*:]")
CODE = re.compile(r"\bError(?:``)?(?: event)?\s+(?:``)?([a-z]+(?:_[a-z]+)+)``")

#: What a name in the code looks like: snake_case, CamelCase, MIGLET_VARIABLE, and a
#: CONSTANT where it is the whole literal.
NAME = re.compile(
    r"\b(?:[a-z]+(?:_[a-z0-9]+)+|[A-Z][a-z]+[A-Z]\w+|MIGLET_[A-Z]\w*[A-Z])\b"
    r"|^[A-Z]{3,}(?:_[A-Z]+)*$"
)

#: Names of others: a cloud, systemd, the kernel, Node.js.
FOREIGN = {
    "MemoryMax",
    "NODE_EXTRA_CA_CERTS",
    "InstanceMetadataTags",
    "DynamicUser",
    "ProtectProc",
    "RestartPreventExitStatus",
    "no_new_privs",
}

#: Names that CONTRIBUTING.rst has its reader write or look at.
EXAMPLES = {
    "DrainIfIdle",
    "LogLevelChanged",
    "TestJournalModel",
    "disk_nearly_full",
    "settings_of",
    "test_each_subcommand_asks_and_shows",
    # Of the tests.
    "ANSWERS",
    "BAD",
    "FILES",
    "GOOD",
    "SNAPSHOT",
}

SUFFIXES = {".py", ".json", ".sh", ".yaml", ""}

#: The product and what its packages consist of.
SOURCE = "\n".join(
    path.read_text(errors="replace")
    for folder in ("miglet", "debian", "etc")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix in SUFFIXES
)
WORDS = set(re.findall(r"\w+", SOURCE))


def names_in(document: Path) -> set[str]:
    """What looks like a name of the code; the paths of files are tested elsewhere."""
    literals = LITERAL.findall(document.read_text())
    return {
        name
        for literal in literals
        if "/" not in literal
        for name in NAME.findall(literal)
    }


def statuses_in(text: str) -> set[int]:
    return set(map(int, re.findall(r"\b\d+\b", text)))


def test_every_setting_that_is_named_exists():
    def names_real_settings(document):
        sections = {key.partition(".")[0] for key in KEYS if "." in key}
        named = {
            name
            for name in SETTING.findall(document.read_text())
            if name.partition(".")[0] in sections and not name.endswith(".com")
        }
        groups = {".".join(key.split(".")[:n]) for key in KEYS for n in (1, 2)}
        assert named - {*KEYS, *groups} == set()

    check_each(DOCUMENTS, names_real_settings)


def test_every_name_in_the_documents_stands_in_the_source():
    def has_our_names(document):
        assert names_in(document) - WORDS - FOREIGN - EXAMPLES == set()

    check_each(DOCUMENTS, has_our_names)


def test_every_code_of_an_error_event_is_one_that_we_send():
    def names_real_codes(document):
        codes = set(CODE.findall(document.read_text()))
        assert {code for code in codes if f'"{code}"' not in SOURCE} == set()

    check_each(DOCUMENTS, names_real_codes)


#: Where the calls that make an error code have it among their arguments.
CODE_AT = {
    "Error": 1,
    "FaultNoted": 1,
    "RegistrationFailed": 1,
    "RunnerFailing": 1,
    "Reason": 0,
    "Crash": 0,
    "Kind": 0,
    "_cannot_use": 0,
    "report": 0,
}


def codes_of(module: ast.Module) -> Iterator[str]:
    """The error codes that a module of ours makes, as far as they stand there."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            index = CODE_AT.get(name, len(node.args))
            named = [each.value for each in node.keywords if each.arg == "code"]
            for each in (*node.args[index : index + 1], *named):
                yield from constants(each)


def constants(node: ast.expr) -> Iterator[str]:
    """The text that an argument is, or either of two."""
    if isinstance(node, ast.IfExp):
        yield from (*constants(node.body), *constants(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_what_each_code_of_an_error_event_asks_for_is_explained():
    modules = [path.read_text() for path in (ROOT / "miglet").rglob("*.py")]
    codes = {code for text in modules for code in codes_of(ast.parse(text))}
    codes.add(SET_ASIDE)
    assert len(codes) > 50
    page = (ROOT / "docs" / "troubleshooting.rst").read_text()
    table = page.partition("What each error code asks for")[2]
    explained = set(re.findall(r"^``(\w+)``", table, re.MULTILINE))
    assert codes - explained == set(), "not in the table of docs/troubleshooting.rst"
    assert explained - codes == set(), "in that table, and made nowhere"


def test_names_codes_and_settings_are_found():
    texts = [document.read_text() for document in DOCUMENTS]
    assert len({*SETTING.findall("\n".join(texts))} & {*KEYS}) > 30
    assert len({*CODE.findall("\n".join(texts))}) > 5
    assert len(set().union(*map(names_in, DOCUMENTS))) > 100


def test_the_readme_has_every_exit_status_and_those_after_which_the_unit_stays_down():
    readme = (ROOT / "README.rst").read_text()
    listed, _, rest = readme.partition("Exit status: ")[2].partition("After ")
    statuses = {
        value
        for name, value in vars(errors).items()
        if name.isupper() and isinstance(value, int)
    }
    assert statuses_in(listed) == statuses
    unit = (ROOT / "debian" / "miglet.service").read_text()
    [staying] = re.findall("^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert statuses_in(rest.partition("systemd")[0]) == {0, *statuses_in(staying)}
