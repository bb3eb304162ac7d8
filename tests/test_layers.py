"""Imports go down: no circle, nothing of a higher floor, nothing inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "miglet"

#: What a floor may import is below it, or in the same package.
FLOORS = [
    {"errors", "formats", "metrics", "redaction", "safefile"},
    {"cli", "config", "control", "http", "logger", "messages"},
    {"controller", "supervisor"},
    {"journal", "metadata", "runner"},
    {"bootstrap", "job"},
    {"lifecycle", "workers"},
    {"commands"},
    {"agent"},
]
#: These stand apart: nobody imports them, and they import nothing but these.
APART = {
    "ctl": {"", "ctl"},
    "reference": {"", "errors", "controller.contract", "formats", "reference"},
}


def modules() -> dict[str, Path]:
    """Every module by its name below `miglet`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules of ours that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "miglet"
        ):
            base = (node.module or "").removeprefix("miglet").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                yield full if full in MODULES else base
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("miglet."):
                    yield alias.name.removeprefix("miglet.")


def floor(name: str) -> int:
    """The floor of a module; a KeyError names a module that has none."""
    part = name.split(".")[0]
    for number, names in enumerate(FLOORS):
        if part in names:
            return number
    raise KeyError(f"{name} is on no floor")


def inner() -> list[str]:
    return [name for name in MODULES if name and name.split(".")[0] not in APART]


@pytest.mark.parametrize("name", inner())
def test_a_module_imports_only_what_is_below_it(name):
    part = name.split(".")[0]
    for other in imports(name):
        if other == "" or other.split(".")[0] == part:
            continue
        assert other.split(".")[0] not in APART, f"{name} imports {other}"
        assert floor(other) < floor(name), f"{name} imports {other}"


@pytest.mark.parametrize("name", [name for name in MODULES if name not in inner()])
def test_what_stands_apart_imports_nothing_of_the_agent(name):
    part = name.split(".")[0]
    for other in imports(name):
        allowed = APART.get(part, set()) | {part}
        assert any(
            f"{other}.".startswith(f"{each}.") for each in allowed if each or not other
        ), other


def test_no_module_is_in_a_circle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join((*path, name))}"
        if name in done:
            return
        for other in imports(name):
            if other in MODULES and other != name:
                visit(other, (*path, name))
        done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_imported_inside_a_function(name):
    tree = ast.parse(MODULES[name].read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for function in (node for node in ast.walk(tree) if isinstance(node, functions)):
        for node in ast.walk(function):
            assert not isinstance(node, ast.Import | ast.ImportFrom), function.name
