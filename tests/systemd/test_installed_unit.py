"""`etc/miglet.service` under a real systemd, with a job: run by `tests/systemd/box`.

The agent is Debian's own Python with Debian's own packages, in its whole sandbox; it
runs as root, its runner as `runner`, and the checks on secrets are made as that user.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from miglet.security import account
from tests.agent import IN_UNITS, QUICK, merged
from tests.reference import ReferenceController, running_controller
from tests.runner_double import Double, install
from tests.support import eventually

pytestmark = pytest.mark.skipif(not IN_UNITS, reason="needs tests/systemd/box")

CHECKOUT = Path(__file__).parents[2]
UNITS = Path("/run/systemd/system")
RUNNER_ROOT = Path("/opt/actions-runner")
CONFIG = Path("/etc/miglet/miglet.yaml")
TOKEN = Path("/etc/miglet/token")
SOCKET = "/run/miglet/control.sock"

#: The installed command, which the checkout does not have.
MIGLET = f"""\
#!/usr/bin/python3 -IB
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from miglet.cli import main
sys.exit(main())
"""

#: A second is what a test of the watchdog can wait for; and the checkout may be in /tmp,
#: of which the unit has one of its own.
QUICKER = f"""\
[Service]
TimeoutStartSec=10s
WatchdogSec=2s
RestartSec=100ms
BindReadOnlyPaths={CHECKOUT}
"""

UNPRIVILEGED = ("heartbeat-sender", "metrics-sampler", "command-poller")


def ran(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command's outcome."""
    return subprocess.run(command, capture_output=True, text=True, **options)


def done(*command: str) -> str:
    """What a command that must succeed printed."""
    told = ran(*command)
    assert told.returncode == 0, (command, told.stdout, told.stderr)
    return told.stdout


def as_runner(*command: str) -> subprocess.CompletedProcess[str]:
    """The outcome of a command that the runner's user runs."""
    become = ("setpriv", "--reuid=runner", "--regid=runner", "--init-groups", "--")
    return ran(*become, *command, cwd="/")


def property_of(unit: str, name: str) -> str:
    return done("systemctl", "show", "--value", "--property", name, unit).strip()


def facts(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (li.partition(":") for li in lines)}


class Machine:
    """The installed service, its controller and its runner."""

    def __init__(self, controller: ReferenceController, double: Double) -> None:
        self.controller = controller
        self.double = double

    def status(self) -> dict[str, Any]:
        """The status object; empty when nobody answers."""
        program = "from miglet.ctl.__main__ import main; import sys; sys.exit(main())"
        told = ran(
            *(sys.executable, "-c", program, "--socket", SOCKET, "--json", "status"),
            cwd=CHECKOUT,
        )
        return json.loads(told.stdout) if told.returncode == 0 else {}

    def until(self, state: str) -> dict[str, Any]:
        """The status as soon as the machine is in this state."""
        return eventually(
            lambda: (now := self.status()).get("state") == state and now,
            20,
            f"{state}, not {self.status().get('state')}; {self.log()}",
        )

    def log(self) -> str:
        return ran("journalctl", "--unit=miglet", "--lines=30", "--output=cat").stdout

    @property
    def pid(self) -> int:
        return int(property_of("miglet.service", "MainPID"))

    def unit(self) -> str:
        """The one unit that the runner is in."""
        listed = done("systemctl", "list-units", "--plain", "--no-legend", "miglet-r*")
        (line,) = listed.splitlines()
        return line.split()[0]

    def in_a_job(self) -> None:
        """Start the service, and a job that goes on until it is told to end."""
        shutil.rmtree("/var/lib/miglet", ignore_errors=True)
        self.double.replan(
            {"listener": [{"scenario": "job", "after": 0, "hold": True}]}
        )
        done("systemctl", "start", "miglet")
        self.until("idle")
        self.double.release_job()
        eventually(lambda: self.double.truth("step_start"), what="the job's step")
        self.until("job_running")

    def ends_well(self) -> None:
        """Let the job end: it was told of once, with its true result."""
        known = {each["id"] for each in self.controller.events("vm-1")}
        assert known and not self.double.truth("step_exit")
        self.double.finish_step()
        eventually(
            lambda: property_of("miglet.service", "ActiveState") == "inactive",
            20,
            "the end of the service",
        )
        told = [
            e for e in self.controller.events("vm-1") if e["type"] == "JobCompleted"
        ]
        assert [each["data"]["result"] for each in told] == ["succeeded"]


@pytest.fixture(scope="module")
def installed() -> None:
    """What the package and the image's maker would put into place."""
    done("systemd-sysusers", str(CHECKOUT / "etc/miglet.sysusers"))
    done("systemd-tmpfiles", "--create", str(CHECKOUT / "etc/miglet.tmpfiles"))
    command = Path("/usr/bin/miglet")
    command.write_text(MIGLET)
    command.chmod(0o755)
    shutil.copy(CHECKOUT / "etc/miglet.service", UNITS)
    (UNITS / "miglet.service.d").mkdir()
    (UNITS / "miglet.service.d/quicker.conf").write_text(QUICKER)
    done("systemctl", "daemon-reload")


@pytest.fixture
def machine(installed, tmp_path) -> Iterator[Machine]:
    shutil.rmtree(RUNNER_ROOT, ignore_errors=True)
    double = install(RUNNER_ROOT, python="/usr/bin/python3")
    done("chown", "--recursive", "runner:runner", str(RUNNER_ROOT))
    with running_controller(tmp_path) as controller:
        CONFIG.parent.mkdir(exist_ok=True)
        shutil.copy(controller.token_path, TOKEN)
        shutil.chown(TOKEN, group="miglet")
        TOKEN.chmod(0o640)
        wanted = {
            "controller": {
                "endpoint": controller.endpoint,
                "auth": {"type": "bearer", "token_path": str(TOKEN)},
            },
            "runner": {"user": "runner", "isolation": "auto"},
            "paths": {"state": "/var/lib/miglet", "runtime": "/run/miglet"},
        }
        CONFIG.write_text(yaml.safe_dump(merged(QUICK, wanted)))
        yield Machine(controller, double)
        ran("systemctl", "kill", "--signal=KILL", "miglet.service", "miglet-r*")
        ran("systemctl", "stop", "miglet.service", "miglet-r*")
        shutil.rmtree("/run/miglet", ignore_errors=True)


def test_the_agent_is_confined_and_its_jobs_are_not(machine):
    machine.in_a_job()
    status = machine.status()
    assert property_of("miglet.service", "ActiveState") == "active"
    agent, listener = facts(machine.pid), facts(status["runner"]["pid"])
    init = facts(1)
    assert (agent["NoNewPrivs"], agent["Seccomp"]) == ("1", "2")
    assert int(agent["CapBnd"], 16) < int(init["CapBnd"], 16)
    assert (listener["NoNewPrivs"], listener["Seccomp"]) == ("0", "0")
    assert listener["CapBnd"] == init["CapBnd"]
    assert listener["Uid"].split() == [str(account("runner").uid)] * 4
    for name in UNPRIVILEGED:
        worker = facts(status["workers"][name]["pid"])
        assert worker["Uid"].split() == [str(account("miglet").uid)] * 4
        assert int(worker["CapEff"], 16) == int(worker["CapPrm"], 16) == 0
    machine.ends_well()


def test_the_runner_is_a_unit_of_its_own_in_the_slice_for_jobs(machine):
    machine.in_a_job()
    unit = machine.unit()
    assert property_of(unit, "Slice") == "miglet-jobs.slice"
    group = Path("/sys/fs/cgroup" + property_of(unit, "ControlGroup"))
    inside = set(map(int, (group / "cgroup.procs").read_text().split()))
    listener = psutil.Process(machine.status()["runner"]["pid"])
    family = {each.pid for each in listener.children(recursive=True)}
    assert inside == {listener.ppid(), listener.pid} | family
    machine.ends_well()
    assert not ran("systemctl", "list-units", "--no-legend", "miglet-r*").stdout


def test_nothing_of_the_agent_is_open_to_its_jobs(machine):
    machine.in_a_job()
    pids = [machine.pid, *(e["pid"] for e in machine.status()["workers"].values())]
    told = property_of(machine.unit(), "ExecStart")
    assert machine.controller.token_path.read_text().strip() not in told
    private = [TOKEN, "/run/miglet/runner", "/var/lib/miglet"]
    private += [f"/proc/{pid}/environ" for pid in pids]
    for path in private:
        assert Path(path).exists(), path
        assert as_runner("test", "-r", str(path)).returncode == 1, path
        assert "denied" in as_runner("head", "-c1", str(path)).stderr, path
    for pid in pids:
        assert "denied" in as_runner("head", "-c1", f"/proc/{pid}/mem").stderr
        assert "not permitted" in as_runner("kill", "-0", str(pid)).stderr
    knock = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    refused = as_runner("/usr/bin/python3", "-c", knock, SOCKET)
    assert "PermissionError" in refused.stderr
    machine.ends_well()


def kill(machine: Machine) -> None:
    os.kill(machine.pid, signal.SIGKILL)


def stop_its_loop(machine: Machine) -> None:
    os.kill(machine.pid, signal.SIGSTOP)


def restart(machine: Machine) -> None:
    done("systemctl", "restart", "miglet")


@pytest.mark.parametrize("end", [kill, stop_its_loop, restart])
def test_a_job_does_not_notice_the_end_of_its_agent(machine, end):
    machine.in_a_job()
    before, unit = machine.pid, machine.unit()
    end(machine)
    eventually(lambda: machine.pid not in (0, before), 20, "another agent")
    status = machine.until("job_running")
    assert status["runner"]["adopted"] and machine.unit() == unit
    assert property_of("miglet.service", "NRestarts") == (
        "0" if end is restart else "1"
    )
    machine.ends_well()


def test_a_runner_outlives_an_agent_that_was_stopped_the_hard_way(machine):
    machine.in_a_job()
    unit = machine.unit()
    done("systemctl", "kill", "--signal=STOP", "miglet")
    ran("systemctl", "stop", "--no-block", "miglet")
    done("systemctl", "kill", "--signal=KILL", "miglet")
    eventually(lambda: not machine.pid, 20, "the end of the agent")
    assert machine.unit() == unit
    done("systemctl", "start", "miglet")
    runner = eventually(lambda: machine.status().get("runner"), 20, "a runner")
    assert runner["adopted"] and machine.unit() == unit
    machine.ends_well()
