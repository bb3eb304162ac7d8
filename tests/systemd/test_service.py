"""`etc/miglet.service` as systemd judges it; nothing is booted for that."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.paths import ROOT

UNIT = ROOT / "etc/miglet.service"

#: What `systemd-analyze security` may say of the unit, times ten.
MOST_EXPOSED = 30


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_exposure_of_the_unit_stays_low():
    threshold = f"--threshold={MOST_EXPOSED}"
    command = ["systemd-analyze", "security", "--offline=true", threshold, str(UNIT)]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr


def test_a_crash_leaves_no_secrets_on_disk():
    assert "LimitCORE=0" in UNIT.read_text().splitlines()
