"""The tests mirror the product: what tests a module is where its name says.

Every module has ``tests/<package>/test_<module>.py``; several files about one module
are distinguished by what follows its name: ``test_<module>_<aspect>.py``.
"""

from __future__ import annotations

from pathlib import Path

from tests.paths import ROOT

PRODUCT, TESTS = ROOT / "miglet", ROOT / "tests"

MODULES = sorted(
    path.relative_to(PRODUCT)
    for path in PRODUCT.rglob("*.py")
    if path.name != "__init__.py"
)

#: Packages whose ``__init__.py`` is a module with contents of its own.
PACKAGES = {Path("controller/contract"): "controller/test_contract*.py"}

MIRRORED = {path.name for path in PRODUCT.iterdir() if path.is_dir()}


def named_after(module: Path) -> str:
    """How the names of a module's tests begin, below ``tests``."""
    name = "main" if module.stem == "__main__" else module.stem
    return str(module.parent / f"test_{name}")


def test_every_module_has_tests_of_its_own():
    paths = [TESTS / f"{named_after(module)}.py" for module in MODULES]
    missing = [str(path) for path in paths if not path.exists()]
    assert missing == []
    texts = {path: path.read_text() for path in paths}
    empty = [
        str(path)
        for path, text in texts.items()
        if "def test_" not in text and "TestCase" not in text
    ]
    assert empty == []


def test_every_file_of_tests_is_named_after_a_module():
    known = [named_after(module) for module in MODULES]
    strangers = [
        str(path.relative_to(TESTS))
        for package in MIRRORED
        for path in (TESTS / package).rglob("test_*.py")
        if not is_known(str(path.relative_to(TESTS).with_suffix("")), known)
    ]
    assert not strangers


def is_known(name: str, known: list[str]) -> bool:
    """Whether a file of tests is about one module, or about an aspect of one."""
    if any(Path(f"{name}.py").match(pattern) for pattern in PACKAGES.values()):
        return True
    return any(name == each or name.startswith(f"{each}_") for each in known)
