"""The runner as a transient service of a systemd that is booted for these tests.

What both launchers must do is tested once more in a machine that `tests/systemd/box`
boots, and so are the other tests of this folder, which run only there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from miglet.runner.launcher import CONFIGURATION_UNIT, RUNNER_UNIT
from tests.agent_process import IN_UNITS
from tests.paths import BOX, ROOT, TESTS

EXPOSURE_LIMIT = 3.0

#: A hang, and not a busy machine: they take 100 s on an idle one of two processors.
UNITS_SECONDS = 1200

#: The box's exit status where it cannot be.
NOT_HERE = 77


def bootable() -> str:
    """Why no systemd can be booted here; empty when it can."""
    if IN_UNITS:
        return "this is the box"
    if os.geteuid() != 0:
        return "only root can boot a systemd"
    needed = ("unshare", "systemd-run", "systemd-sysusers", "setpriv")
    missing = [name for name in needed if not shutil.which(name)]
    return f"there is no {', '.join(missing)}" if missing else ""


def in_a_box(test: Callable[[], None]) -> Callable[[], None]:
    """The test boots a systemd, where one can be booted."""
    test = pytest.mark.skipif(bool(bootable()), reason=bootable())(test)
    return pytest.mark.systemd(test)


def boxed(*command: object, seconds: int) -> None:
    """Run a command that must succeed under a systemd of its own."""
    ran = subprocess.run(
        [BOX, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "BOX_SECONDS": str(seconds)},
    )
    if ran.returncode == NOT_HERE:
        pytest.skip(ran.stderr)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr


@in_a_box
def test_under_systemd_all_that_is_true_of_launched_programs_is_true_of_units():
    inside = ["env", f"--chdir={ROOT}", "TEST_IN_UNITS=1"]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    boxed(*inside, *tests, "-m", "units", seconds=UNITS_SECONDS)


@in_a_box
def test_at_the_machines_end_the_runner_waits_for_miglet_and_config_sh_can_start():
    options = [" ".join(kind.options) for kind in (RUNNER_UNIT, CONFIGURATION_UNIT)]
    boxed(TESTS / "systemd" / "machines-end", *options, seconds=60)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_the_unit_is_confined_enough():
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    unit = ROOT / "etc/miglet.service"
    ran = subprocess.run([*command, unit], capture_output=True, text=True)
    level = ran.stdout.rpartition("exposure level for miglet.service: ")[2]
    assert float(level.split()[0]) <= EXPOSURE_LIMIT
