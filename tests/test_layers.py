"""The layers of the package: imports point down, there is no cycle, and none is lazy.

``python -m tests.test_layers`` prints the layers and what each package imports.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.paths import ROOT

PACKAGE = ROOT / "miglet"

#: From the lowest layer to the highest. A package imports those of lower layers only.
LAYERS = [
    {"errors", "formats", "metrics", "redaction", "safefile"},
    {"cli", "config", "control", "http", "logger", "messages"},
    {"arguments", "controller", "supervisor"},
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


@functools.cache
def tree_of(name: str) -> ast.Module:
    """A module's source as a tree."""
    return ast.parse(MODULES[name].read_text())


@functools.cache
def imports(name: str) -> list[str]:
    """The modules of the package that a module imports, anywhere in it."""
    return list(_imports(tree_of(name)))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
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


def test_a_module_imports_lower_layers_only():
    upward = [
        f"{name} imports {other}"
        for name in AGENT
        for other in filter(None, imports(name))
        if part_of(other) != part_of(name) and not is_lower(other, name)
    ]
    assert upward == []


def is_lower(other: str, name: str) -> bool:
    """Whether one module's package is in a lower layer than another's."""
    if part_of(other) in APART:
        return False
    return LAYER_OF[part_of(other)] < LAYER_OF[part_of(name)]


def test_what_stands_apart_imports_nothing_of_the_agent():
    of_the_agent = [
        f"{name} imports {other}"
        for name in MODULES
        if part_of(name) in APART
        for other in imports(name)
        if not is_within(APART[part_of(name)], other)
    ]
    assert of_the_agent == []


def is_within(allowed: set[str], name: str) -> bool:
    """Whether a module is one of those that are allowed, or in one of these."""
    return any(
        f"{name}.".startswith(f"{each}.") for each in allowed if each or not name
    )


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


def test_nothing_is_imported_inside_a_function():
    lazy = [
        f"{name}:{node.lineno} in {function}"
        for name in MODULES
        for function, node in imports_in_functions(tree_of(name))
    ]
    assert lazy == []


def imports_in_functions(
    tree: ast.AST, function: str = ""
) -> Iterator[tuple[str, ast.Import | ast.ImportFrom]]:
    """Every import that a call makes, with the name of the function called."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if function:
                yield function, node
        elif isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            defined = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from imports_in_functions(node, node.name if defined else function)


def test_an_import_in_a_function_is_seen():
    source = """
import a
if a:
    from b import c
class D:
    def method(self):
        for _ in range(3):
            try:
                pass
            except OSError:
                import e
def outer():
    with a:
        async def inner():
            match a:
                case 1:
                    from f import g
"""
    found = [
        (function, node.lineno)
        for function, node in imports_in_functions(ast.parse(source))
    ]
    assert found == [("method", 11), ("inner", 17)]


def test_lean_imports_is_the_first_module_that_the_start_imports():
    """It spares the parent modules that the imports after it would bring along."""
    first = next(
        node
        for node in tree_of("agent.start").body
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
