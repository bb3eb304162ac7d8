"""docs/faults.rst is complete: no row without a test, no test without a row."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

from tests.paths import ROOT, TESTS

TABLE = (ROOT / "docs" / "faults.rst").read_text()

#: The faults that MIGlet set out to survive; more have come since.
LEAST = 50

NAME = re.compile(r"``(tests/[\w/]+\.py)::(\w+)``")
ROW = re.compile(r"^(\d+)\. \*\*", re.MULTILINE)


def rows() -> dict[int, str]:
    """The text of each row by its number."""
    places = list(ROW.finditer(TABLE))
    ends = [each.start() for each in places[1:]] + [len(TABLE)]
    return {
        int(each[1]): TABLE[each.start() : end]
        for each, end in zip(places, ends, strict=True)
    }


@functools.cache
def defined(path: Path) -> frozenset[str]:
    """What pytest could collect from a module, by name."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found.add(node.name)
        if isinstance(node, ast.Assign):
            names = [each.id for each in node.targets if isinstance(each, ast.Name)]
            found.update(name for name in names if name.startswith("Test"))
    return frozenset(found)


def named() -> set[tuple[str, str]]:
    return set(NAME.findall(TABLE))


def test_every_fault_has_a_row_in_its_order():
    numbers = [int(number) for number in ROW.findall(TABLE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= LEAST


def test_every_row_names_a_test():
    assert [number for number, text in rows().items() if not NAME.search(text)] == []


def test_every_test_that_is_named_exists():
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named())
        if not (ROOT / file).exists() or name not in defined(ROOT / file)
    ]
    assert missing == []


def test_every_test_that_injects_a_fault_is_named_by_a_row():
    injecting = {
        (str(path.relative_to(ROOT)), name)
        for path in (TESTS / "faults").glob("test_*.py")
        for name in defined(path)
    }
    assert len(injecting) > 30
    assert injecting - named() == set()
