"""`etc/miglet.service` under a real systemd, with a job: run by `tests/systemd/box`.

The agent is Debian's own Python with Debian's own packages, in its whole sandbox, or,
where some of them are not installed, with those that run the tests; it runs as root,
its runner as `runner`, and the checks on secrets are made as that user.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.agent_process import IN_UNITS, QUICK, merged
from tests.paths import ROOT
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double import FAST, install
from tests.support import eventually
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

#: A second is what a test of the watchdog can wait for. The checkout may be in /tmp, of
#: which the unit has one of its own.
QUICKER = f"""\
[Service]
TimeoutStartSec=10s
WatchdogSec=2s
RestartSec=100ms
BindReadOnlyPaths={ROOT}
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


def configure(controller: ReferenceController) -> None:
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
    CONFIG.write_text(yaml.safe_dump(merged(QUICK, wanted)))


@pytest.fixture
def machine(installed, tmp_path) -> Iterator[Machine]:
    shutil.rmtree(RUNNER_ROOT, ignore_errors=True)
    job = {"scenario": "job", "after": 0, "hold": True}
    plan = {"scale": FAST, "listener": [job]}
    double = install(RUNNER_ROOT, plan, python="/usr/bin/python3")
    HERE.done("chown", "--recursive", "runner:runner", str(RUNNER_ROOT))
    with running_controller(tmp_path) as controller:
        configure(controller)
        HERE.done("systemctl", "start", "miglet")
        yield Machine(HERE, controller, double, "vm-1", (str(TOKEN),))
        HERE.ran("systemctl", "kill", "--signal=KILL", "miglet.service", "miglet-r*")
        HERE.ran("systemctl", "stop", "miglet.service", "miglet-r*")
        HERE.ran("systemctl", "reset-failed", "miglet.service")
        for folder in ("/run/miglet", "/var/lib/miglet"):
            shutil.rmtree(folder, ignore_errors=True)


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
    eventually(lambda: not machine.pid, 20, "the end of the agent")
    assert machine.unit() == unit
    HERE.done("systemctl", "start", "miglet")

    def adopted() -> bool:
        return bool((machine.status().get("runner") or {}).get("adopted"))

    # Or it is draining: with SIGTERM systemd sends SIGCONT, and the kill may be later.
    eventually(adopted, 20, "the adoption of the runner")
    assert machine.unit() == unit
    machine.ends_well()
