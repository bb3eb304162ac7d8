"""The runner as a transient service: its commands, its records, and a real systemd.

Most of it is proven by the tests that both launchers pass, run once more in a machine
that `tests/systemd/box` boots, and by `tests/systemd/`, which only run there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from miglet.runner import cgroup, launchers, recorder, shim, transient
from miglet.runner.exitstatus import KEEPER_LOST, untold
from miglet.runner.launcher import LaunchFailed
from miglet.runner.records import read_record
from miglet.runner.unit import Unit
from miglet.runner.usage import Usage
from tests.agent_process import IN_UNITS
from tests.paths import BOX, ROOT, TESTS
from tests.preflight_machine import settings_of

pytestmark = pytest.mark.integration

EXPOSURE_LIMIT = 3.5

#: The box's exit status where it cannot be.
NOT_HERE = 77

KINDS = (transient.RUNNER, transient.CONFIGURATION)


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
    told = subprocess.run(
        [BOX, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "BOX_SECONDS": str(seconds)},
    )
    if told.returncode == NOT_HERE:
        pytest.skip(told.stderr)
    assert told.returncode == 0, told.stdout[-8000:] + told.stderr


@in_a_box
def test_under_systemd_all_that_is_true_of_launched_programs_is_true_of_units():
    inside = ["env", f"--chdir={ROOT}", "TEST_IN_UNITS=1"]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    boxed(*inside, *tests, "-m", "units", seconds=400)


@in_a_box
def test_at_the_machines_end_the_runner_waits_for_miglet_and_config_sh_can_start():
    options = [" ".join(kind.options) for kind in KINDS]
    boxed(TESTS / "systemd" / "machines-end", *options, seconds=60)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_the_unit_is_confined_enough():
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    unit = ROOT / "etc/miglet.service"
    told = subprocess.run([*command, unit], capture_output=True, text=True)
    level = told.stdout.rpartition("exposure level for miglet.service: ")[2]
    assert float(level.split()[0]) <= EXPOSURE_LIMIT


def test_a_command_line_says_nothing_of_what_is_secret_and_expands_nothing():
    folder = Path('/run/a "b" $HOME/current')
    command = transient.RUNNER.command("u.service", "vm-1", folder, "order-1")
    assert command[-1] == "order-1"
    assert command[-3] == '/run/a "b" $$HOME/current'
    (stop,) = [word for word in command if "ExecStopPost=" in word]
    assert stop.endswith(r'"recorder" "/run/a \"b\" $$HOME/current"')
    assert stop.startswith("--property=ExecStopPost=-")


def test_a_systemd_that_does_not_answer_is_a_failed_launch():
    with pytest.raises(LaunchFailed, match="cannot be asked"):
        transient.run(("/no/such/systemd-run",))
    with pytest.raises(LaunchFailed, match="no unit today"):
        transient.run(("sh", "-c", "echo no unit today >&2; exit 1"))


def test_a_door_may_be_deeper_in_the_file_system_than_an_address_is_long(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with transient.listening(folder, "order-1") as door:
        assert door.family == socket.AF_UNIX
        assert (folder / "order-1").is_socket()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("isolation", "usable", "wanted"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("process", True, False),
        ("systemd", True, True),
    ],
)
def test_a_unit_is_chosen_where_there_can_be_one(isolation, usable, wanted):
    assert launchers.unit_wanted(isolation, usable) is wanted


def test_the_runner_and_its_configuration_are_never_taken_for_each_other(tmp_path):
    settings = settings_of(tmp_path, runner__isolation="systemd")
    runner = launchers.runner_launcher(settings)
    configuration = launchers.configuration_launcher(settings)
    assert runner.begin == transient.RUNNER.begin
    assert configuration.begin == transient.CONFIGURATION.begin
    assert runner.root != configuration.root


def group(folder: Path, **files: str) -> str:
    """A control group with these files; a dot in a name is two underscores."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return str(folder)


def test_the_group_tells_what_a_job_used_without_what_could_be_dropped(tmp_path):
    folder = group(
        tmp_path / "group",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
        memory__current="1000\n",
        memory__stat="anon 600\ninactive_file 300\nactive_file 100\n",
        io__stat="8:0 rbytes=7 wbytes=11 rios=1\n8:16 rbytes=1 wbytes=2\n",
        memory__events="oom 1\noom_kill 2\noom_group_kill 0\n",
    )
    unit = Unit("u.service", "id", folder)
    assert Usage(**unit.figures()) == Usage(2.5, 700, 8, 13)
    assert unit.oom_kills() == 2


def test_what_the_kernel_does_not_count_is_left_out(tmp_path):
    folder = group(tmp_path / "group", cpu__stat="usage_usec 1000000\n", io__stat="")
    assert Unit("u", "id", folder).figures() == {
        "cpu_seconds": 1.0,
        "io_read_bytes": 0,
        "io_write_bytes": 0,
    }
    assert Unit("u", "id", str(tmp_path / "gone")).figures() == {}
    assert Unit("u", "id", None).figures() == {}
    assert Unit("u", "id", folder).oom_kills() is None


def test_everybody_below_is_in_the_group(tmp_path):
    folder = group(tmp_path / "group", cgroup__procs="1\n2\n")
    group(tmp_path / "group" / "below", cgroup__procs="3\n")
    assert sorted(Unit("u", "id", folder).pids()) == [1, 2, 3]
    assert Unit("u", "id", str(tmp_path / "gone")).pids() == []


def test_our_own_group_is_that_of_version_2_where_that_is_mounted(tmp_path):
    mine = tmp_path / "cgroup"
    mine.write_text("4:memory:/elsewhere\n0::/a.slice/b.service\n")
    root = tmp_path / "root"
    (root / "a.slice").mkdir(parents=True)
    assert cgroup.own(str(mine), str(root)) is None
    found = group(root / "a.slice/b.service", cgroup__procs="")
    assert cgroup.own(str(mine), str(root)) == found
    mine.write_text("4:memory:/elsewhere\n")
    assert cgroup.own(str(mine), str(root)) is None


def test_a_unit_is_present_in_one_invocation_only(tmp_path):
    unit = Unit("u.service", "f00", None)
    assert not unit.present(str(tmp_path))
    link = tmp_path / "invocation:u.service"
    link.symlink_to("f00")
    assert unit.present(str(tmp_path))
    link.unlink()
    link.symlink_to("ba5")
    assert not unit.present(str(tmp_path))


@pytest.fixture
def ended(tmp_path, monkeypatch) -> Path:
    """The folder of a run whose unit has ended, as the recorder is started for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVOCATION_ID", "f00")
    monkeypatch.setenv("SERVICE_RESULT", "oom-kill")
    monkeypatch.setenv("EXIT_CODE", "killed")
    monkeypatch.setenv("EXIT_STATUS", "KILL")
    folder = tmp_path / "current"
    folder.mkdir()
    shim.record(str(folder), "run.json", {"unit": {"invocation_id": "f00"}})
    return folder


def recorded(folder: Path) -> dict | None:
    """What the recorder leaves in the folder."""
    mask = os.umask(0o022)
    try:
        recorder.main(str(folder))
    finally:
        os.umask(mask)
    return read_record(folder / "stop.json")


def test_the_recorder_tells_how_a_unit_ended_whose_keeper_was_killed(ended):
    told = recorded(ended)
    assert told and (told["result"], told["status"]) == ("oom-kill", "KILL")
    assert (ended / "stop.json").stat().st_mode & 0o777 == 0o600
    status = untold(ended)
    assert not status.known and status.reason == f"{KEEPER_LOST} (systemd: oom-kill)"
    assert status.ended_at == told["ended_at"]


@pytest.mark.parametrize("unit", [{"invocation_id": "ba5"}, None, {}])
def test_the_recorder_leaves_the_folder_of_another_run_alone(ended, unit):
    shim.record(str(ended), "run.json", {"unit": unit})
    assert recorded(ended) is None


def test_the_recorder_of_a_run_that_was_forgotten_writes_nothing(ended):
    (ended / "run.json").unlink()
    assert recorded(ended) is None
    ended.rmdir()
    with pytest.raises(SystemExit):
        recorder.main(str(ended))
    assert not ended.exists()


def test_the_figures_of_the_group_are_recorded(tmp_path):
    folder = group(
        tmp_path / "group",
        cpu__stat="usage_usec 1500000\n",
        io__stat="8:0 rbytes=7 wbytes=11\n",
        memory__events="oom_kill 1\n",
    )
    told = recorder.ending({}, folder)
    assert told["cpu_seconds"] == 1.5 and told["oom_kills"] == 1
    assert (told["io_read_bytes"], told["io_write_bytes"]) == (7, 11)
    assert "oom_kills" not in recorder.ending({}, None)
