"""What a cloud tells its machine besides the configuration: its end, and a token."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
import yaml

from tests.agent_process import QUICK, merged
from tests.end_to_end.conftest import HELD, IDLE, Machine
from tests.metadata_fakes import FAKES, Fake
from tests.reference_process import TOKEN, running_controller
from tests.support import eventually


@pytest.fixture
def controller(tmp_path):
    """One for each test: the fakes give every machine the same name."""
    with running_controller(tmp_path) as running:
        yield running


@pytest.fixture
def gce():
    with FAKES["gce"]() as fake:
        yield fake


@pytest.fixture
def aws():
    with FAKES["aws"]() as fake:
        yield fake


def in_cloud(machine, fake: Fake, *listener: Any, **settings: Any) -> Machine:
    """A machine whose whole configuration is in the metadata, but for its folders."""
    vm = machine(*listener)
    quick = {key: value for key, value in QUICK.items() if key != "vm_id"}
    document = merged(
        merged(quick, {"controller": {"endpoint": vm.controller.endpoint}}), settings
    )
    fake.describe(
        {
            "miglet-config": yaml.safe_dump(document),
            "miglet-controller-token": TOKEN,
        }
    )
    local = yaml.safe_load(vm.agent.config.read_text())
    places = {
        "paths": local["paths"],
        "runner": {"directory": local["runner"]["directory"]},
    }
    vm.agent.config.write_text(yaml.safe_dump(places))
    vm.agent.environment.update(fake.environment)
    return vm


def known(vm: Machine) -> Machine:
    """The machine under the name that the cloud gave it."""
    vm.vm = eventually(lambda: vm.agent.status()["vm_id"])
    return vm


def test_preemption_drains_an_idle_machine_within_a_second(machine, gce):
    vm = in_cloud(machine, gce, IDLE)
    vm.agent.start()
    vm.agent.until("idle")
    known(vm)
    steps = vm.events("VMStarted")[0]["data"]["timeline"]
    assert {"kernel", "miglet", "metadata", "preflight"} <= steps.keys()
    assert "notice-watcher" in vm.agent.workers()
    eventually(lambda: any("wait_for_change" in str(each) for each in gce.asked))
    noticed = time.monotonic()
    gce.change("instance/preempted", "TRUE")
    event = vm.event("TerminationNotice")
    assert event["received_mono"] - noticed < 1.0
    assert event["data"]["kind"] == "preempted"
    assert event["data"]["deadline"]
    assert vm.agent.wait() == 0
    assert vm.events("VMShuttingDown")[0]["data"]["reason"] == "termination_notice"


@pytest.mark.slow
def test_a_job_goes_on_after_a_notice_and_dies_of_it_truthfully(machine, gce):
    vm = in_cloud(machine, gce, HELD)
    vm.agent.start()
    vm.agent.until("idle")
    known(vm)
    vm.double.release_job()
    vm.event("JobStarted")
    gce.change("instance/preempted", "TRUE")
    vm.event("TerminationNotice")
    vm.agent.until("draining")
    assert not vm.double.truth("signal")
    listener = vm.agent.status()["runner"]["pid"]
    os.kill(listener, signal.SIGKILL)
    data = vm.event("JobCompleted")["data"]
    assert data["cause"] == "termination_notice"
    assert vm.agent.wait() == 0


def test_a_spot_notice_is_heard_within_six_seconds(machine, aws):
    vm = in_cloud(machine, aws, IDLE)
    vm.agent.start()
    vm.agent.until("idle")
    known(vm)
    noticed = time.monotonic()
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 120))
    aws.change(
        "meta-data/spot/instance-action",
        json.dumps({"action": "terminate", "time": soon}),
    )
    event = vm.event("TerminationNotice", seconds=10)
    assert event["received_mono"] - noticed < 6.5
    assert event["data"]["kind"] == "spot_instance_action"
    assert vm.agent.wait() == 0


def test_a_registration_token_can_come_from_the_metadata(machine, gce):
    vm = in_cloud(
        machine,
        gce,
        IDLE,
        github={
            "org": "octo",
            "token_source": "metadata",
            "metadata_path": "registration-token",
        },
    )
    gce.change("instance/attributes/registration-token", "AMETADATATOKEN01")
    vm.agent.start()
    vm.agent.until("idle")
    (started,) = vm.double.truth("config_start")
    assert "AMETADATATOKEN01" not in json.dumps(started) + vm.agent.log()
    known(vm)
    vm.agent.signal(signal.SIGTERM)
    assert vm.agent.wait() == 0
