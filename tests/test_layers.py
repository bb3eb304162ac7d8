"""The layers of the package: imports point down, there is no cycle, and none is lazy.

``python -m tests.test_layers`` prints the layers and what each package imports.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "miglet"

#: From the lowest layer to the highest. A package imports those of lower layers only.
LAYERS = [
    {"errors", "formats", "metrics", "redaction", "safefile"},
    {"cli", "config", "control", "http", "logger", "messages"},
    {"controller", "supervisor"},
    {"journal", "metadata", "runner"},
    {"bootstrap", "job"},
    {"lifecycle", "workers"},
    {"commands"},
    {"agent"},
]

#: These stand apart: nothing imports them, and they import only what is named here.
APART = {
    "ctl": {"", "ctl"},
    "reference": {"", "errors", "controller.contract", "formats", "reference"},
}

LAYER_OF = {part: layer for layer, parts in enumerate(LAYERS, 1) for part in parts}


def modules() -> dict[str, Path]:
    """Every module by its name below `miglet`; a package by that of its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and is_ours(node.module or ""):
            base = (node.module or "").removeprefix("miglet").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                yield full if full in MODULES else base
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_ours(alias.name):
                    yield alias.name.removeprefix("miglet").lstrip(".")


def is_ours(name: str) -> bool:
    return name == "miglet" or name.startswith("miglet.")


def part_of(name: str) -> str:
    """The package, or the module at the top level, that a module belongs to."""
    return name.split(".")[0]


AGENT = [name for name in MODULES if name and part_of(name) not in APART]


def test_every_package_has_a_layer_and_every_layer_its_packages():
    assert {part_of(name) for name in AGENT} == LAYER_OF.keys()


@pytest.mark.parametrize("name", AGENT)
def test_a_module_imports_lower_layers_only(name: str):
    for other in filter(None, imports(name)):
        if part_of(other) != part_of(name):
            assert part_of(other) not in APART, f"{name} imports {other}"
            assert LAYER_OF[part_of(other)] < LAYER_OF[part_of(name)], (
                f"{name} imports {other}"
            )


@pytest.mark.parametrize("name", [name for name in MODULES if part_of(name) in APART])
def test_what_stands_apart_imports_nothing_of_the_agent(name: str):
    for other in imports(name):
        allowed = APART[part_of(name)]
        assert any(
            f"{other}.".startswith(f"{each}.") for each in allowed if each or not other
        ), f"{name} imports {other}"


def test_there_is_no_import_cycle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"cycle: {' -> '.join((*path, name))}"
        if name in done:
            return
        for other in imports(name):
            if other in MODULES and other != name:
                visit(other, (*path, name))
        done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_imported_inside_a_function(name: str):
    tree = ast.parse(MODULES[name].read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for function in (node for node in ast.walk(tree) if isinstance(node, functions)):
        for node in ast.walk(function):
            assert not isinstance(node, ast.Import | ast.ImportFrom), function.name


def test_lean_imports_is_the_first_module_that_the_start_imports():
    """It spares the parent modules that the imports after it would bring along."""
    tree = ast.parse(MODULES["agent.start"].read_text())
    first = next(
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and is_ours(node.module or "")
    )
    assert first.module == "miglet.supervisor"
    assert "lean_imports" in [alias.name for alias in first.names]


def edges() -> set[tuple[str, str]]:
    """Which package imports which other one."""
    found = {
        (part_of(name), part_of(other)) for name in AGENT for other in imports(name)
    }
    return {(part, other) for part, other in found if other and part != other}


def describe() -> Iterator[str]:
    """The layers from the top, each package with what it imports."""
    arrows = edges()
    for layer in range(len(LAYERS), 0, -1):
        for part in sorted(LAYERS[layer - 1]):
            below = sorted(other for each, other in arrows if each == part)
            yield f"{layer}  {part:<11} imports {', '.join(below) or 'nothing'}"
    files = [name for name, path in MODULES.items() if path.name != "__init__.py"]
    yield (
        f"{len(files)} modules, {len(LAYER_OF) + len(APART)} packages and top-level"
        f" modules, {len(LAYERS)} layers, {len(arrows)} imports between packages"
    )


if __name__ == "__main__":
    print(*describe(), sep="\n")
