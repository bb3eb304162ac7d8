"""`etc/miglet.service` under a real systemd, with a job: run by `tests/systemd/box`.

The agent is Debian's own Python with Debian's own packages, in its whole sandbox, or,
where some of them are not installed, with those that run the tests; it runs as root,
its runner as `runner`, and the checks on secrets are made as that user.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from miglet.agent.last_resort import PREFIX
from tests.agent_process import IN_UNITS, QUICK, merged
from tests.metadata_fakes import FAKES, Fake
from tests.metadata_fakes.serving import hang
from tests.paths import ROOT
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double.double import install
from tests.runner_double.plan import FAST
from tests.support import eventually, open_files
from tests.systemd import promises
from tests.systemd.console import Console
from tests.systemd.machine import Machine

pytestmark = [
    pytest.mark.units,
    pytest.mark.skipif(not IN_UNITS, reason="needs tests/systemd/box"),
]

UNITS = Path("/run/systemd/system")
RUNNER_ROOT = Path("/opt/actions-runner")
CONFIG = Path("/etc/miglet/miglet.yaml")
TOKEN = Path("/etc/miglet/token")
HERE = Console()

#: Where the packages are that run the tests.
PACKAGES = Path(psutil.__file__).parents[1]

#: The installed commands, which the checkout does not have, and where they are.
COMMAND = f"""\
#!/usr/bin/python3 -IB
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.path.append({str(PACKAGES)!r})
from miglet.{{module}} import main
sys.exit(main())
"""
COMMANDS = {"miglet": "cli", "miglet-ctl": "ctl.__main__"}

#: Seconds are what a test of the watchdog can wait for. The checkout may be in /tmp, of
#: which the unit has one of its own.
QUICKER = f"""\
[Service]
TimeoutStartSec=60s
WatchdogSec=5s
RestartSec=100ms
BindReadOnlyPaths="{ROOT}"
"""

test_the_agent_is_confined_and_its_jobs_are_not = (
    promises.test_the_agent_is_confined_and_its_jobs_are_not
)
test_nothing_of_the_agent_is_open_to_its_jobs = (
    promises.test_nothing_of_the_agent_is_open_to_its_jobs
)
test_no_worker_can_disturb_another_one_or_the_agent = (
    promises.test_no_worker_can_disturb_another_one_or_the_agent
)
test_a_worker_may_not_ask_the_control_socket_and_an_operator_may_only_read = (
    promises.test_a_worker_may_not_ask_the_control_socket_and_an_operator_may_only_read
)
test_a_job_does_not_notice_the_end_of_its_agent = (
    promises.test_a_job_does_not_notice_the_end_of_its_agent
)


@pytest.fixture(scope="module")
def installed() -> None:
    """What the package and the image's maker would put into place."""
    HERE.done("systemd-sysusers", str(ROOT / "etc/miglet.sysusers"))
    HERE.done("systemd-tmpfiles", "--create", str(ROOT / "etc/miglet.tmpfiles"))
    for name, module in COMMANDS.items():
        command = Path("/usr/bin") / name
        command.write_text(COMMAND.format(module=module))
        command.chmod(0o755)
    shutil.copy(ROOT / "etc/miglet.service", UNITS)
    (UNITS / "miglet.service.d").mkdir()
    (UNITS / "miglet.service.d/quicker.conf").write_text(QUICKER)
    HERE.done("systemctl", "daemon-reload")


@pytest.fixture
def settings() -> dict[str, Any]:
    """More settings; a test may ask for some."""
    return {}


@pytest.fixture
def more_of_the_unit() -> str:
    """More lines for the section of the service; a test may ask for some."""
    return ""


@pytest.fixture
def service(installed, more_of_the_unit) -> Iterator[None]:
    """The service, not started; of what it did nothing is left afterwards."""
    more = UNITS / "miglet.service.d/test.conf"
    more.write_text(f"[Service]\n{more_of_the_unit}\n")
    HERE.done("systemctl", "daemon-reload")
    yield
    HERE.ran("systemctl", "kill", "--signal=KILL", "miglet.service", "miglet-r*")
    HERE.ran("systemctl", "stop", "miglet.service", "miglet-r*")
    HERE.ran("systemctl", "reset-failed", "miglet.service")
    more.unlink()
    for folder in ("/run/miglet", "/var/lib/miglet"):
        shutil.rmtree(folder, ignore_errors=True)


def configure(controller: ReferenceController, settings: dict[str, Any]) -> None:
    """The files in /etc/miglet."""
    CONFIG.parent.mkdir(exist_ok=True)
    shutil.copy(controller.token_path, TOKEN)
    shutil.chown(TOKEN, group="miglet-net")
    TOKEN.chmod(0o440)
    wanted = {
        "controller": {
            "endpoint": controller.endpoint,
            "auth": {"type": "bearer", "token_path": str(TOKEN)},
        },
        "runner": {"user": "runner", "isolation": "auto"},
        "paths": {"state": "/var/lib/miglet", "runtime": "/run/miglet"},
    }
    CONFIG.write_text(yaml.safe_dump(merged(merged(QUICK, wanted), settings)))


@pytest.fixture
def machine(service, settings, tmp_path) -> Iterator[Machine]:
    shutil.rmtree(RUNNER_ROOT, ignore_errors=True)
    job = {"scenario": "job", "after": 0, "hold": True}
    plan = {"scale": FAST, "listener": [job]}
    double = install(RUNNER_ROOT, plan, python="/usr/bin/python3")
    HERE.done("chown", "--recursive", "runner:runner", str(RUNNER_ROOT))
    with running_controller(tmp_path) as controller:
        configure(controller, settings)
        HERE.done("systemctl", "start", "miglet")
        yield Machine(HERE, controller, double, "vm-1", (str(TOKEN),))


def test_the_runner_is_a_unit_of_its_own_in_the_slice_for_jobs(machine):
    machine.in_a_job()
    unit = machine.unit()
    assert HERE.property_of(unit, "Slice") == "miglet-jobs.slice"
    group = Path("/sys/fs/cgroup" + HERE.property_of(unit, "ControlGroup"))
    inside = set(map(int, (group / "cgroup.procs").read_text().split()))
    listener = psutil.Process(machine.status()["runner"]["pid"])
    family = {each.pid for each in listener.children(recursive=True)}
    assert inside == {listener.ppid(), listener.pid} | family
    machine.ends_well()
    listed = HERE.done("systemctl", "list-units", "--no-legend", "miglet-r*")
    assert not listed


def test_a_runner_outlives_an_agent_that_was_stopped_the_hard_way(machine):
    machine.in_a_job()
    unit = machine.unit()
    HERE.done("systemctl", "kill", "--signal=STOP", "miglet")
    HERE.ran("systemctl", "stop", "--no-block", "miglet")
    HERE.done("systemctl", "kill", "--signal=KILL", "miglet")
    eventually(lambda: not machine.pid, what="the end of the agent")
    assert machine.unit() == unit
    HERE.done("systemctl", "start", "miglet")

    def adopted() -> bool:
        return bool((machine.status().get("runner") or {}).get("adopted"))

    # Or it is draining: with SIGTERM systemd sends SIGCONT, and the kill may be later.
    eventually(adopted, what="the adoption of the runner")
    assert machine.unit() == unit
    machine.ends_well()


# The end of the machine while the controller is away.

#: What a machine does that has nothing more to do, scaled.
LAST = {
    "shutdown": {
        "action": "poweroff",
        "delivery_timeout": "6s",
        "last_resort": "console",
    }
}


@pytest.fixture
def console() -> Iterator[Path]:
    """A file in the place of the machine's console."""
    path = Path("/run/console-for-tests")
    path.touch()
    HERE.done("mount", "--bind", str(path), "/dev/console")
    yield path
    HERE.done("umount", "/dev/console")
    path.unlink()


@pytest.fixture
def power(service) -> Iterator[Any]:
    """Whether the machine is switched off, which nothing comes of here."""
    unit = UNITS / "poweroff.target"
    unit.write_text("[Unit]\nDescription=Stands in for the end of the machine\n")
    HERE.done("systemctl", "daemon-reload")
    yield lambda: HERE.property_of("poweroff.target", "ActiveState") == "active"
    HERE.ran("systemctl", "stop", "poweroff.target")
    unit.unlink()
    HERE.done("systemctl", "daemon-reload")


def leave(controller: ReferenceController) -> None:
    """The controller is away from now on."""
    controller.process.terminate()
    controller.process.wait(10)


@contextmanager
def returned(machine: Machine, tmp_path: Path) -> Iterator[Machine]:
    """The controller is there again, and knows what it knew."""
    address = machine.controller.endpoint.rpartition("/")[2]
    with running_controller(tmp_path, listen=address) as controller:
        machine.controller = controller
        yield machine


@pytest.mark.parametrize("settings", [LAST])
def test_what_the_controller_misses_is_on_the_console_and_reported_by_a_later_start(
    machine, console, power, tmp_path
):
    machine.in_a_job()
    leave(machine.controller)
    machine.double.finish_step()
    restarted = eventually(lambda: machine.shown("NRestarts") != "0", what="exit 75")
    assert restarted and "exit status 75" in machine.log() and not power()
    lines = console.read_text().splitlines()
    printed = [line.partition(PREFIX)[2] for line in lines if PREFIX in line]
    assert json.loads(printed[0])["type"] == "JobCompleted"
    with returned(machine, tmp_path):
        machine.ended()
        (completed,) = machine.events("JobCompleted")
        assert completed["data"]["result"] == "succeeded"
        assert machine.controller.events(machine.vm)[-1]["type"] == "VMStopped"
    eventually(power, what="the end of the machine")


@pytest.mark.parametrize("settings", [LAST])
@pytest.mark.parametrize("more_of_the_unit", ["TimeoutStopSec=2s"])
def test_a_stop_is_given_the_time_that_the_last_events_may_take(
    machine, console, power, tmp_path
):
    machine.until("idle")
    leave(machine.controller)
    began = time.monotonic()
    HERE.done("systemctl", "stop", "miglet")
    assert time.monotonic() - began >= 6.0
    shown = [machine.shown(name) for name in ("Result", "ExecMainStatus", "NRestarts")]
    assert shown == ["exit-code", "75", "0"], machine.log()
    assert not power()
    with returned(machine, tmp_path):
        HERE.done("systemctl", "start", "miglet")
        machine.ended()
        assert machine.controller.events(machine.vm)[-1]["type"] == "VMStopped"
        assert len(machine.events("RunnerRegistered")) == 1


# Starts that fail, and who reads what strangers send.


@pytest.fixture
def gce() -> Iterator[Fake]:
    """A cloud that this machine is in, and a file that leaves everything to it."""
    with FAKES["gce"](port=METADATA_PORT) as fake:
        CONFIG.parent.mkdir(exist_ok=True)
        CONFIG.write_text("{}\n")
        yield fake


METADATA_PORT = 8169

#: How the service finds the fake.
IN_A_CLOUD = f"Environment=MIGLET_CLOUD=gce GCE_METADATA_HOST=127.0.0.1:{METADATA_PORT}"


@pytest.mark.parametrize("more_of_the_unit", [IN_A_CLOUD])
def test_a_start_that_fails_again_and_again_waits_and_systemd_shows_why(service, gce):
    gce.fail(403)
    HERE.ran("systemctl", "start", "--no-block", "miglet")

    def shown(name: str) -> str:
        return HERE.property_of("miglet.service", name)

    for failed in (2, 3):
        eventually(lambda n=failed: f"{n} starts failed" in shown("StatusText"))
        assert shown("StatusText").startswith("waiting until 20")
        assert "is required" in shown("StatusText") and "403" in shown("StatusText")
        assert shown("ActiveState") == "active"
        assert shown("NRestarts") == str(failed)
    began = time.monotonic()
    eventually(lambda: shown("NRestarts") == "4", what="the next start")
    assert time.monotonic() - began >= 1.0


def child(name: str) -> psutil.Process | None:
    """The child task of this name."""
    return next((p for p in psutil.process_iter(["name"]) if p.name() == name), None)


def powerless(process: psutil.Process) -> bool:
    """Whether this is the user of child tasks, and can never be another one."""
    facts = HERE.facts(process.pid)
    assert facts["Uid"].split() == [str(HERE.uid("miglet-tasks"))] * 4
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
    return facts["NoNewPrivs"] == "1"


def connections(pid: int) -> set[str]:
    """The TCP sockets of a process, by their inodes."""
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    inodes = {f"socket:[{row.split()[9]}]" for row in rows}
    return inodes.intersection(open_files(pid))


@pytest.mark.parametrize("more_of_the_unit", [IN_A_CLOUD])
def test_no_process_of_the_start_that_is_root_speaks_to_the_metadata_server(
    service, gce
):
    gce.fail(hang)
    HERE.ran("systemctl", "start", "--no-block", "miglet")

    def asking() -> psutil.Process | None:
        found = child("metadata")
        return found if found and connections(found.pid) else None

    process = eventually(asking, what="a process that reads the metadata")
    assert powerless(process)
    for each in process.parents():
        if each.pid != 1:
            assert not connections(each.pid), each


PLAN = Path("/run/failpoints/plan")


@pytest.fixture
def failpoints() -> Iterator[None]:
    """A plan of failpoints whose folder every process may leave its mark in."""
    PLAN.parent.mkdir()
    PLAN.parent.chmod(0o1777)
    PLAN.write_text("command.validating 1 stop\n")
    yield
    shutil.rmtree(PLAN.parent)


@pytest.mark.usefixtures("failpoints")
@pytest.mark.parametrize("more_of_the_unit", [f"Environment=MIGLET_FAILPOINTS={PLAN}"])
def test_a_command_is_judged_by_a_process_that_is_not_root(failpoints, machine):
    machine.until("idle")
    config = {"config": {"heartbeat": {"interval": "1s"}}}
    number = machine.controller.command(machine.vm, "UpdateConfig", config)

    def stopped() -> psutil.Process | None:
        found = child("validation")
        return found if found and found.status() == psutil.STATUS_STOPPED else None

    process = eventually(stopped, what="a process that judges the command")
    assert powerless(process)
    process.send_signal(signal.SIGCONT)
    assert machine.controller.outcome(machine.vm, number)["outcome"] == "done"
