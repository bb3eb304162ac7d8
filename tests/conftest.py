"""How all tests are run."""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.paths import TESTS

#: Folders whose tests have a marker each: what they have in common.
MARKERS = {
    "end_to_end": ("integration",),
    "faults": ("integration", "fault"),
    "image": ("integration", "systemd"),
    "runner_double": ("integration",),
    "systemd": ("integration",),
}

# Settings of who runs the tests are not those of the agents that they start.
for name in [name for name in os.environ if name.startswith("MIGLET_")]:
    del os.environ[name]

IN_CI = "CI" in os.environ

# How quick a machine is, is not what these tests are about: it may be busy. And the
# checkout may be there to be read only.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
    derandomize=IN_CI,
)
settings.register_profile("quick", settings.get_profile("patient"), max_examples=10)
settings.load_profile("patient")

# A shell has what it runs in the background ignore SIGINT, and so would all we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose Hypothesis's seed here, so that a failure can name it.

    Processes of pytest-xdist get it with the other options.
    """
    if config.option.hypothesis_seed is None and not IN_CI:
        config.option.hypothesis_seed = str(random.randrange(2**32))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """After a failure say how to repeat what was random."""
    if exitstatus and not IN_CI:
        seed = config.option.hypothesis_seed
        terminalreporter.write_line(f"repeat with --hypothesis-seed={seed}")


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """Have the garbage collector look seldom at what stays until the end.

    Those are modules and all tests: it took an eighth of the processor time of
    `make quick`. Not by gc.freeze: Hypothesis asks who refers to its generator.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.set_threshold(20_000, 20, 100)
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder."""
    for item in items:
        for name in markers_of(item.path):
            item.add_marker(name)


@functools.cache
def markers_of(path: Path) -> tuple[str, ...]:
    """What the folder of a module of tests is marked with."""
    return MARKERS.get(path.resolve().relative_to(TESTS).parts[0], ())


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    """Whether fewer examples will do, in `make quick`; Hypothesis's profile says so."""
    return pytestconfig.getoption("hypothesis_profile") == "quick"
