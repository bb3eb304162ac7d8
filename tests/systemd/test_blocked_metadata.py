"""MIGlet's own unit may not change packet filters: it has its table loaded outside.

Run by `tests/systemd/box`, in whose network there is nobody else.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from miglet.runner.metadata_firewall import MARKER
from tests.agent_process import IN_UNITS
from tests.paths import ROOT

pytestmark = [
    pytest.mark.units,
    pytest.mark.skipif(not IN_UNITS, reason="needs tests/systemd/box"),
    pytest.mark.skipif(not shutil.which("nft"), reason="there is no nft"),
]

UNIT = Path("/run/systemd/system/blocking.service")
RUNTIME = Path("/run/miglet")

#: What the packaged unit says of its main process and of other units, which this
#: machine may have, and not of its sandbox.
PROCESS = ("Type", "Notify", "Exec", "Watchdog", "Restart", "Wants", "After")

#: Both things that the agent does, at a start and at a registration.
PROGRAM = """\
import sys
sys.path.insert(0, {checkout!r})
from miglet.metadata.clouds import metadata_addresses
from miglet.runner import metadata_firewall
from miglet.supervisor.privileges import account
from tests.sample_settings import sample_settings
assert not metadata_firewall.may_filter()
flat = {{"runner.block_metadata": {block}, "paths.runtime": {runtime!r}}}
settings, nobody = sample_settings(flat), account("nobody")
metadata_firewall.dry_run(settings, nobody, metadata_addresses())
metadata_firewall.apply(settings, nobody, metadata_addresses())
"""


def rules() -> str:
    """The table, if there is one."""
    command = ["nft", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sandbox() -> str:
    """The packaged unit without its main process."""
    lines = (ROOT / "etc/miglet.service").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith(PROCESS))


@pytest.fixture
def sandboxed():
    """Calls with a setting, from a process that is confined as the agent is."""
    code = Path("/run/blocking.py")

    def call(block: bool) -> subprocess.CompletedProcess[str]:
        words = {"checkout": str(ROOT), "runtime": str(RUNTIME), "block": block}
        code.write_text(PROGRAM.format(**words))
        begin = f"Type=oneshot\nExecStart=/usr/bin/python3 -IB {code}\n"
        # The checkout may be in /tmp, of which the unit has one of its own.
        begin += f'BindReadOnlyPaths="{ROOT}"\n'
        UNIT.write_text(sandbox().replace("[Service]\n", f"[Service]\n{begin}"))
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        command = ["systemctl", "start", UNIT.name]
        return subprocess.run(command, capture_output=True, text=True)

    yield call
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    shutil.rmtree(RUNTIME, ignore_errors=True)
    UNIT.unlink()
    subprocess.run(["systemctl", "daemon-reload"], check=True)


def log() -> str:
    command = ["journalctl", f"--unit={UNIT.name}", "--output=cat", "--lines=40"]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_the_units_sandbox_is_no_hindrance(sandboxed):
    for block in (True, True, False, False):
        completed = sandboxed(block)
        assert completed.returncode == 0, log()
        assert ("skuid 65534" in rules()) is block
        assert [path.name for path in RUNTIME.iterdir()] == ([MARKER] if block else [])


def test_what_nft_complains_of_outside_is_reported_inside(sandboxed):
    fake = Path("/usr/local/sbin/nft")
    fake.write_text("#!/bin/sh\necho no such filter >&2\nexit 1\n")
    fake.chmod(0o755)
    try:
        completed = sandboxed(True)
    finally:
        fake.unlink()
    assert completed.returncode and "nft refuses the rules: no such filter" in log()
    assert not list(RUNTIME.iterdir())
