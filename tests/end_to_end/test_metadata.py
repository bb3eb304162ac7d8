"""A machine that holds nothing: all it knows, it learns from its cloud."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.agent_process import BIN
from tests.cases import slow_except
from tests.end_to_end.conftest import IDLE, Machine, job
from tests.metadata_fakes import FAKES, Fake
from tests.notify_socket import NotifySocket
from tests.reference_process import TOKEN
from tests.support import eventually


@pytest.fixture(params=slow_except(sorted(FAKES), "gce"))
def cloud(request) -> Iterator[Fake]:
    with FAKES[request.param]() as fake:
        yield fake


@pytest.fixture
def gce() -> Iterator[Fake]:
    with FAKES["gce"]() as fake:
        yield fake


def moved(
    vm: Machine, cloud: Fake, with_token: bool = True, **attributes: str
) -> Machine:
    """The machine with all that its file said in its metadata, and an empty file."""
    settings: dict[str, Any] = yaml.safe_load(vm.agent.config.read_text())
    vm.vm = settings.pop("vm_id")
    auth = settings["controller"].pop("auth")
    token = Path(auth["token_path"]).read_text()
    spelt = {name.replace("_", "-"): text for name, text in attributes.items()}
    cloud.describe(
        {
            "miglet-config": yaml.safe_dump(settings),
            "miglet-vm-id": vm.vm,
            **({"miglet-controller-token": token} if with_token else {}),
            **spelt,
        }
    )
    vm.agent.config.write_text("")
    vm.agent.environment.update(cloud.environment)
    return vm


def said_by_command(vm: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `miglet` says on this machine."""
    return subprocess.run(
        [BIN / "miglet", "--config", str(vm.agent.config), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **vm.agent.environment},
    )


def test_a_job_runs_on_a_machine_that_knew_nothing(machine, cloud):
    vm = moved(machine(job()), cloud)
    vm.agent.start()
    assert vm.event("JobCompleted")["data"]["result"] == "succeeded"
    started = vm.event("VMStarted")["data"]
    assert started["cloud"] == cloud.environment["MIGLET_CLOUD"]
    known = ("zone", "machine_type", "image", "hostname")
    assert all(started[each] for each in known)
    check = next(each for each in started["preflight"] if each["id"] == "metadata")
    assert check["status"] == "ok"
    assert vm.agent.wait() == 0
    token = vm.agent.folder / "run" / "controller-token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text().strip() not in vm.agent.log()


def test_the_clouds_instance_id_is_the_name_where_no_other_is_given(gce, machine):
    vm = moved(machine(IDLE), gce)
    del gce.tree["instance"]["attributes"]["miglet-vm-id"]  # type: ignore[attr-defined]
    vm.vm = str(gce.tree["instance"]["id"])  # type: ignore[attr-defined]
    vm.agent.start()
    assert vm.event("VMStarted")["vm_id"] == vm.vm


def test_without_its_metadata_the_start_says_why(machine, gce):
    vm = moved(machine(IDLE), gce)
    gce.fail(403)
    vm.agent.start()
    assert vm.agent.wait() == 69
    lines = [line for line in vm.agent.log().splitlines() if "is required" in line]
    assert len(lines) == 4
    assert all("metadata was unavailable: 127.0.0.1:" in line for line in lines)
    assert all("403 Forbidden" in line for line in lines)


def test_a_start_without_settings_that_fails_again_waits_and_says_why(machine, gce):
    vm = moved(machine(IDLE), gce)
    (vm.agent.folder / "state").mkdir(exist_ok=True)
    gce.fail(403)
    with closing(NotifySocket(vm.agent, vm.vm)) as systemd:
        for _ in range(2):
            vm.agent.start()
            assert vm.agent.wait() == 69
        assert not systemd.hears("READY=1")
        began = time.monotonic()
        vm.agent.start()
        assert vm.agent.wait() == 69
        assert time.monotonic() - began >= 1.0
        ready, status, *rest = systemd.listen()
    assert ready == "READY=1"
    assert status.startswith("STATUS=waiting until 20")
    assert "2 starts failed: " in status and "is required" in status
    assert "WATCHDOG=1" in rest


def test_a_start_that_needs_no_metadata_goes_on_and_tells_of_the_lack(machine, gce):
    vm = machine(IDLE)
    vm.agent.environment.update(gce.environment)
    gce.fail(404)
    vm.agent.start()
    error = vm.event("Error")["data"]
    assert error["code"] == "metadata_unavailable"
    assert "404, which this cloud always has" in error["message"]
    started = vm.event("VMStarted")["data"]
    assert (started["cloud"], started["zone"]) == ("gce", None)
    vm.event("RunnerRegistered")


def test_a_wrong_attribute_is_reported_to_the_controller(machine, cloud):
    vm = moved(machine(IDLE), cloud, miglet_logging_level="shrill")
    vm.agent.start()
    error = vm.event("Error")["data"]
    assert error["category"] == "misconfig"
    assert "logging.level (metadata miglet-logging-level)" in error["message"]
    assert vm.agent.wait() == 78


def test_the_commands_show_what_comes_from_metadata_and_no_token(machine, cloud):
    vm = moved(machine(IDLE), cloud)
    table = said_by_command(vm, "config")
    assert table.returncode == 0, table.stderr
    secret = "miglet-controller-token"
    assert [line for line in table.stdout.splitlines() if secret in line]
    rows = json.loads(said_by_command(vm, "check", "--json").stdout)
    assert {"id": "metadata", "status": "ok"}.items() <= rows[0].items()
    assert not (vm.agent.folder / "run" / "controller-token").exists()


def test_nothing_of_it_is_in_the_environment_or_the_command_line(machine, gce):
    vm = moved(machine(IDLE), gce)
    secret = gce.tree["instance"]["attributes"][  # type: ignore[attr-defined]
        "miglet-controller-token"
    ].strip()
    vm.agent.start()
    vm.event("RunnerRegistered")
    parent = psutil.Process(vm.agent.pid)
    for process in (parent, *parent.children(recursive=True)):
        for name in ("environ", "cmdline"):
            content = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert secret.encode() not in content


def test_a_machine_that_cannot_keep_a_job_from_a_secret_in_metadata_takes_none(
    machine, gce
):
    vm = moved(machine(runner={"block_metadata": "auto"}), gce)
    vm.agent.start()
    assert vm.agent.wait() == 78
    assert "set runner.user to a user of its own" in vm.agent.log()
    assert not vm.double.truth("config_start")
    completed = said_by_command(vm, "check")
    assert completed.returncode == 78
    assert "fail  runner_metadata" in completed.stdout


def test_a_token_that_comes_after_the_machine_is_taken_within_seconds(machine, cloud):
    vm = moved(machine(IDLE), cloud, with_token=False)
    vm.agent.start()
    vm.agent.until("waiting_for_controller")
    eventually(lambda: "set the instance's attribute" in vm.agent.log())
    cloud.describe({"miglet-controller-token": TOKEN})
    vm.agent.until("idle", 20)
    assert TOKEN not in vm.agent.log()


def test_a_rotated_token_is_taken_and_proved_by_a_command(machine, gce):
    vm = moved(machine(IDLE), gce)
    vm.agent.start()
    vm.agent.until("idle")
    kept = vm.agent.folder / "run" / "controller-token"
    gce.describe({"miglet-controller-token": "not-the-controllers"})
    eventually(lambda: kept.read_text() == "not-the-controllers\n")
    eventually(lambda: not vm.agent.status()["controller"]["reachable"], 15)
    gce.describe({"miglet-controller-token": TOKEN})
    eventually(lambda: vm.agent.status()["controller"]["reachable"], 15)
    assert vm.order("RotateCredentials")["outcome"] == "done"
