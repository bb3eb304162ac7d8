"""What is true of the service on every machine that has systemd.

Run in a box with this checkout in the place of the package, and on a golden image with
the package: each of those modules has a fixture `machine`, whose service has started.
"""

from __future__ import annotations

import pytest

from tests.support import eventually
from tests.systemd.machine import SERVICE, Machine

#: The unprivileged workers, and the user that each of them is.
UNPRIVILEGED = {
    "heartbeat-sender": "miglet-heartbeat",
    "metrics-sampler": "miglet-metrics",
    "command-poller": "miglet-commands",
}

#: The shell's own kill; the program comes with a package that need not be there.
KILL = ("bash", "-c", 'kill "$@"', "kill")

#: Connect to the socket that is named on the command line.
KNOCK = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def test_the_agent_is_confined_and_its_jobs_are_not(machine):
    machine.in_a_job()
    console, status = machine.console, machine.status()
    assert machine.shown("ActiveState") == "active"
    agent, init = console.facts(machine.pid), console.facts(1)
    listener = console.facts(status["runner"]["pid"])
    assert (agent["NoNewPrivs"], agent["Seccomp"]) == ("1", "2")
    assert int(agent["CapBnd"], 16) < int(init["CapBnd"], 16)
    assert (listener["NoNewPrivs"], listener["Seccomp"]) == ("0", "0")
    assert listener["CapBnd"] == init["CapBnd"]
    assert listener["Uid"].split() == [str(console.uid("runner"))] * 4
    for name, user in UNPRIVILEGED.items():
        worker = console.facts(status["workers"][name]["pid"])
        assert worker["Uid"].split() == [str(console.uid(user))] * 4
        assert int(worker["CapEff"], 16) == int(worker["CapPrm"], 16) == 0
        assert worker["NoNewPrivs"] == "1"
    machine.ends_well()


def test_nothing_of_the_agent_is_open_to_its_jobs(machine):
    machine.in_a_job()
    console, token = machine.console, machine.controller.token_path.read_text().strip()
    pids = [machine.pid, *(e["pid"] for e in machine.status()["workers"].values())]
    assert token not in console.property_of(machine.unit(), "ExecStart")
    private = [*machine.secrets, "/run/miglet/runner", "/var/lib/miglet"]
    private += [f"/proc/{pid}/environ" for pid in pids]
    for path in private:
        assert console.ran("test", "-e", path).returncode == 0, path
        assert console.as_runner("test", "-r", path).returncode == 1, path
        assert "denied" in console.as_runner("head", "-c1", path).stderr, path
    for pid in pids:
        assert "denied" in console.as_runner("head", "-c1", f"/proc/{pid}/mem").stderr
        assert "not permitted" in console.as_runner(*KILL, "-0", str(pid)).stderr
    socket = "/run/miglet/control.sock"
    refused = console.as_runner("/usr/bin/python3", "-c", KNOCK, socket)
    assert "PermissionError" in refused.stderr
    logged = ("journalctl", "--unit=miglet", "--output=cat", "--quiet")
    assert console.done(*logged)
    assert not console.as_runner(*logged).stdout
    machine.ends_well()


#: Try to signal and to read the processes that are named on the command line.
DISTURB = """
import os, sys
for pid in sys.argv[1:]:
    for act in (lambda: os.kill(int(pid), 0), lambda: open(f"/proc/{pid}/mem", "rb")):
        try:
            act()
            print("disturbed", pid)
        except (PermissionError, FileNotFoundError):
            pass
print("tried")
"""


def test_no_worker_can_disturb_another_one_or_the_agent(machine):
    machine.in_a_job()
    console, workers = machine.console, machine.status()["workers"]
    pids = [each["pid"] for each in workers.values()]
    uids = {str(pid): int(console.facts(pid)["Uid"].split()[0]) for pid in pids}
    for user in (*UNPRIVILEGED.values(), "miglet-notices", "miglet-tasks"):
        others = [pid for pid, uid in uids.items() if uid != console.uid(user)]
        tried = console.as_user(
            user, "/usr/bin/python3", "-c", DISTURB, str(machine.pid), *others
        )
        assert tried.stdout.split() == ["tried"], (user, tried.stdout, tried.stderr)
    machine.ends_well()


def test_a_worker_may_not_ask_the_control_socket_and_an_operator_may_only_read(machine):
    machine.in_a_job()
    console = machine.console
    console.done("useradd", "--system", "--groups", "miglet", "onlooker")
    try:
        asked = console.as_user("onlooker", "miglet-ctl", "--json", "status")
        assert asked.returncode == 0, asked.stderr
        ordered = console.as_user("onlooker", "miglet-ctl", "drain")
        assert ordered.returncode != 0 and "not permitted" in ordered.stderr
        token = console.as_user("onlooker", "head", "-c1", machine.secrets[0])
        assert "denied" in token.stderr
    finally:
        console.done("userdel", "onlooker")
    for user in UNPRIVILEGED.values():
        asked = console.as_user(user, "miglet-ctl", "--json", "status")
        assert asked.returncode != 0, user
    assert machine.status()["state"] == "job_running"
    machine.ends_well()


def kill(machine: Machine) -> None:
    machine.console.done(*KILL, "-KILL", str(machine.pid))


def stop_its_loop(machine: Machine) -> None:
    machine.console.done(*KILL, "-STOP", str(machine.pid))


def restart(machine: Machine) -> None:
    machine.console.done("systemctl", "restart", "miglet")


@pytest.mark.parametrize("end", [kill, stop_its_loop, restart])
def test_a_job_does_not_notice_the_end_of_its_agent(machine, end):
    machine.in_a_job()
    before, unit = machine.pid, machine.unit()
    end(machine)
    eventually(lambda: machine.pid not in (0, before), what="another agent")
    machine.until("job_running", lambda status: status["runner"]["adopted"])
    assert machine.unit() == unit
    restarts = machine.console.property_of(SERVICE, "NRestarts")
    assert restarts == ("0" if end is restart else "1")
    machine.ends_well()
