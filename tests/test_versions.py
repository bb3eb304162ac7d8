"""Which versions of other software MIGlet says that it works with."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import PackageNotFoundError, version
from itertools import chain

import pytest

from tests.paths import ROOT
from tests.test_package import DEBIAN, DEBIAN_NAMES

CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")
RUNTIME = CONFIG["options"]["install_requires"].split()
EXTRAS = {name: text.split() for name, text in CONFIG["options.extras_require"].items()}

#: Debian 12 has none of these, or one from which nothing follows.
UNBOUNDED = {"openapi-spec-validator", "google-auth"}


def bounds(requirements: list[str]) -> dict[str, str]:
    """Name and lower bound of each; empty where it has none."""
    found = {}
    for each in requirements:
        name, _, bound = each.partition(">=")
        assert re.fullmatch(r"[\w.-]+", name), f"{each}: only a lower bound is allowed"
        found[name] = bound
    return found


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def control_bounds(package: str) -> dict[str, str]:
    """What debian/control says of the Python modules that `package` depends on."""
    text = (DEBIAN / "control").read_text()
    (paragraph,) = re.findall(rf"^Package: {package}\n(?:.+\n)+", text, re.M)
    found = re.findall(r"^ (python3-[\w.-]+)(?: \(>= ([\w.]+)\))?,$", paragraph, re.M)
    return dict(found)


def by_package(requirements: list[str]) -> dict[str, str]:
    """The bounds in `requirements`, by Debian's names."""
    return {
        DEBIAN_NAMES.get(name, f"python3-{name}"): bound
        for name, bound in bounds(requirements).items()
    }


def test_nothing_has_an_upper_bound():
    bounds([*RUNTIME, *chain(*EXTRAS.values())])


def test_all_that_runs_has_a_lower_bound():
    assert all(bounds([*RUNTIME, *EXTRAS["controller"]]).values())
    tested = bounds(EXTRAS["test"])
    assert {name for name, bound in tested.items() if not bound} == UNBOUNDED


@pytest.mark.parametrize(
    ("name", "bound"), bounds([*RUNTIME, *EXTRAS["controller"]]).items()
)
def test_what_is_installed_is_no_older(name, bound):
    """With Debian's own packages this says that the bounds are not too high."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert numbers(installed) >= numbers(bound)


def test_debians_package_of_the_agent_has_the_same_bounds():
    """dh_python3 adds what is missing there, without a bound."""
    assert control_bounds("miglet") == by_package(RUNTIME)


def test_debians_package_of_the_controller_has_the_same_bounds():
    every = by_package([*RUNTIME, *EXTRAS["controller"]])
    needed = ("python3-aiohttp", "python3-jsonschema")
    assert control_bounds("miglet-controller") == {name: every[name] for name in needed}
