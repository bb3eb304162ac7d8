"""A machine that boots from the golden image, from its registration to its upgrade.

Nobody touches it: what it is to do it learns from the metadata and the controller.
"""

from __future__ import annotations

import re

import pytest

from tests.image.conftest import Boot
from tests.support import eventually
from tests.systemd import promises
from tests.systemd.machine import SERVICE, Machine

#: The most that `systemd-analyze security` may find exposed.
EXPOSURE_LIMIT = 3.0

#: A step that becomes root, and then has a second of work done by a process that nobody
#: waits for: its parent knows nothing of what it used (sigaction(2), SA_NOCLDWAIT).
STEP = """
set -e
test "$(sudo -n id -u)" = 0
/usr/bin/python3 - <<'SCRIPT'
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
ours, theirs = os.pipe()
if not os.fork():
    while time.process_time() < 1:
        pass
    os._exit(0)
os.close(theirs)
os.read(ours, 1)
SCRIPT
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


@pytest.fixture
def machine(boot: Boot) -> Machine:
    """Booted; nobody has touched it."""
    return boot("golden", "base")[1]


def test_a_machine_that_boots_is_ready_before_it_is_registered(machine, capsys):
    machine.until("idle")
    assert machine.shown("ActiveState") == "active"
    started, ready = (
        int(machine.shown(f"{each}TimestampMonotonic")) / 1e6
        for each in ("ExecMainStart", "ActiveEnter")
    )
    (registered,) = machine.events("RunnerRegistered")
    seconds = registered["received_mono"] - started
    with capsys.disabled():
        print(f"\nready {ready - started:.2f} s, registered {seconds:.2f} s", end=" ")
    assert started < ready < registered["received_mono"]


def test_a_person_reads_the_units_status(machine):
    machine.in_a_job()
    line = r"job_running: [\w-]+/[\w-]+#\d+ .+, 0 min"
    eventually(
        lambda: re.fullmatch(line, machine.shown("StatusText")),
        what=f"a readable status, not {machine.shown('StatusText')}",
    )
    machine.ends_well()


def test_the_installed_unit_is_confined_enough(machine, capsys):
    printed = machine.console.done("systemd-analyze", "security", "--no-pager", SERVICE)
    level = float(printed.rpartition(f"exposure level for {SERVICE}: ")[2].split()[0])
    with capsys.disabled():
        print(f"\nexposure {level}", end=" ")
    assert level <= EXPOSURE_LIMIT


def test_a_job_with_sudo_is_reported_from_start_to_end(machine):
    machine.until("idle")
    machine.double.push_job({"steps": [{"script": STEP}], "check_run_id": 777001})
    machine.ended()
    (started,), (ended,) = machine.events("JobStarted"), machine.events("JobCompleted")
    assert started["job_id"] == ended["job_id"] == "777001"
    assert started["run_id"] == ended["run_id"] and started["run_id"].isdigit()
    assert (ended["data"]["result"], ended["data"]["cause"]) == ("succeeded", "success")
    used = ended["data"]["resource_usage"]
    assert 1 <= used["cpu_seconds"] < 20 and used["max_memory_bytes"] > 1 << 20


def test_an_upgrade_leaves_the_job_alone_and_the_new_version_reports_it(machine):
    machine.in_a_job()
    old, unit = machine.status(), machine.unit()
    machine.console.done(
        "sh", "-c", "apt-get install -y -qq /srv/packages/newer/miglet_*"
    )
    new = machine.until("job_running", lambda status: status["runner"]["adopted"])
    assert new["version"] == f"{old['version']}+next" and new["pid"] != old["pid"]
    assert machine.unit() == unit
    assert new["job"]["trace_id"] == old["job"]["trace_id"]
    machine.ends_well()
