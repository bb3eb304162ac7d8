"""Every key that may change at run time changes something in a running MIGlet.

What tests of the worker or of the lifecycle show as well is marked as slow.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miglet.config.settings import RUNTIME_KEYS
from tests.end_to_end.conftest import HELD, IDLE, Machine, job, pointed_at
from tests.stub_controller import GO_ON, stub_controller
from tests.support import eventually

LONG = "1h"

#: The test that shows the effect of each key.
SHOWN: dict[str, Callable[..., None]] = {}

#: What GitHub's tokens look like, so that redaction knows one.
TOKEN = "ghp_" + "0123456789" * 3 + "abcdef"


def shows(*keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a test as the one that shows the effect of `keys`."""

    def register(test: Callable[..., None]) -> Callable[..., None]:
        SHOWN.update(dict.fromkeys(keys, test))
        return test

    return register


def started(machine: Callable[..., Machine], *plan: Any, **settings: Any) -> Machine:
    """A machine whose runner is registered."""
    vm = machine(*(plan or (IDLE,)), **settings)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.agent.until("idle")
    return vm


def busy(machine: Callable[..., Machine], **settings: Any) -> Machine:
    """A machine in the middle of a job."""
    vm = machine(HELD, IDLE, **settings)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    return vm


def update(vm: Machine, **settings: Any) -> None:
    """Change settings by the controller's command."""
    answer = vm.order("UpdateConfig", config=settings)
    assert answer["outcome"] == "done", answer


def test_each_run_time_key_has_a_test_of_its_effect():
    assert set(SHOWN) == RUNTIME_KEYS


@pytest.mark.slow
@shows("heartbeat.interval")
def test_a_shorter_heartbeat_interval_brings_more_heartbeats(machine):
    vm = started(machine, heartbeat={"interval": LONG, "timeout": LONG})
    before = len(vm.controller.heartbeats(vm.vm))
    update(vm, heartbeat={"interval": "100ms"})
    eventually(lambda: len(vm.controller.heartbeats(vm.vm)) > before + 8)


@shows("heartbeat.timeout")
def test_a_shorter_heartbeat_timeout_shows_an_unreachable_controller_sooner(machine):
    vm = started(machine, heartbeat={"interval": "100ms", "timeout": LONG})
    eventually(lambda: vm.agent.status()["controller"]["reachable"])
    update(vm, heartbeat={"timeout": "300ms"})
    sender = vm.agent.workers()["heartbeat-sender"]
    sender.suspend()
    try:
        eventually(lambda: not vm.agent.status()["controller"]["reachable"], 3)
    finally:
        sender.resume()


@shows("controller.timeout")
def test_a_shorter_controller_timeout_ends_a_request_sooner(machine):
    answering = threading.Event()
    answering.set()

    def script(call: str, body: Any) -> Any:
        if call == "events":
            answering.wait()
        return GO_ON

    with stub_controller() as stub:
        stub.script = script
        vm = pointed_at(machine(IDLE, controller={"timeout": "10m"}), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        stub.commands = [command("c-1", {"controller.timeout": "300ms"})]
        eventually(lambda: stub.events("CommandCompleted"))
        answering.clear()
        stub.commands = [{"id": "c-2", "type": "Drain"}]
        eventually(lambda: repeated(stub.events()), what="an event sent again")
        answering.set()
        assert vm.agent.wait() == 0


def repeated(events: list[dict[str, Any]]) -> bool:
    """Whether an event came twice, the first request having been given up."""
    sequences = [event["sequence"] for event in events]
    return len(sequences) > len(set(sequences))


def command(number: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "type": "UpdateConfig", "parameters": settings}


@pytest.mark.slow
@shows("controller.command_wait")
def test_another_command_wait_is_asked_for(machine):
    with stub_controller() as stub:
        vm = pointed_at(machine(IDLE), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        stub.commands = [command("c-1", {"controller.command_wait": "7s"})]
        eventually(lambda: "7" in stub.calls("commands")[-1].query)


@shows("controller.command_interval")
def test_a_shorter_command_interval_brings_more_polls(machine):
    polling = {"command_wait": 0, "command_interval": LONG}
    with stub_controller() as stub:
        stub.commands = [command("c-1", {"controller.command_interval": "100ms"})]
        vm = pointed_at(machine(IDLE, controller=polling), stub.endpoint)
        vm.agent.start()
        eventually(lambda: len(stub.calls("commands")) > 8)


@shows("controller.retry.initial_backoff", "controller.retry.max_backoff")
def test_a_shorter_back_off_brings_the_runner_back_sooner(machine):
    retry = {"initial_backoff": "10m", "max_backoff": "10m"}
    vm = started(machine, IDLE, IDLE, controller={"retry": retry})
    update(vm, controller={"retry": dict.fromkeys(retry, "50ms")})
    former = vm.agent.status()["runner"]["pid"]
    kill_listener(vm)
    vm.event("RunnerCrashed")
    eventually(lambda: (vm.agent.status()["runner"] or {}).get("pid", former) != former)
    vm.agent.until("idle")


def kill_listener(vm: Machine) -> None:
    """As when the kernel runs out of memory."""
    os.kill(vm.agent.status()["runner"]["pid"], signal.SIGKILL)


@shows("controller.retry.max_attempts")
def test_fewer_attempts_report_a_failing_token_request_sooner(machine):
    refusing = True

    def script(call: str, body: Any) -> Any:
        if call == "registration-token" and refusing:
            return 503, {}, b""
        return GO_ON

    with stub_controller() as stub:
        stub.script = script
        retry = {"max_attempts": 100, "max_backoff": "100ms"}
        vm = pointed_at(machine(IDLE, controller={"retry": retry}), stub.endpoint)
        stub.commands = [command("c-1", {"controller.retry.max_attempts": 40})]
        vm.agent.start()
        eventually(lambda: stub.events("Error"), 20)
        assert len(stub.calls("registration-token")) < 100
        refusing = False
        vm.agent.until("idle")


@shows("runner.after_job")
def test_another_runner_is_registered_after_a_job_that_should_have_been_the_last(
    machine,
):
    vm = busy(machine)
    update(vm, runner={"after_job": "register"})
    vm.double.finish_step()
    vm.event("RunnerRegistered", count=2)


@pytest.mark.slow
@shows("runner.idle_timeout")
def test_an_idle_timeout_that_is_set_while_idle_ends_the_machine(machine):
    vm = started(machine)
    update(vm, runner={"idle_timeout": "200ms"})
    assert vm.agent.wait() == 0
    assert vm.events("VMShuttingDown")[0]["data"]["reason"] == "idle_timeout"


@pytest.mark.slow
@shows("runner.max_job_duration")
def test_a_maximum_duration_that_is_set_during_a_job_stops_the_job(machine):
    vm = busy(machine)
    update(vm, runner={"max_job_duration": "100ms"})
    assert vm.event("JobCompleted")["data"]["cause"] == "timeout"


@shows("runner.ghost_timeout")
def test_a_shorter_ghost_timeout_holds_for_the_listener_in_view(machine):
    vm = machine({"scenario": "ghost"}, IDLE, runner={"ghost_timeout": LONG})
    vm.agent.start()
    vm.event("RunnerRegistered")
    update(vm, runner={"ghost_timeout": "200ms"})
    assert vm.event("Error")["data"]["code"] == "ghost"


@shows("runner.finish_timeout")
def test_a_shorter_finish_timeout_holds_for_the_worker_in_view(machine):
    vm = machine({"scenario": "completion_hangs"}, runner={"finish_timeout": LONG})
    vm.agent.start()
    vm.event("JobStarted")
    update(vm, runner={"finish_timeout": "200ms"})
    assert vm.event("JobCompleted")["data"]["cause"] == "worker_stuck"


@shows("runner.orphan_timeout")
def test_a_shorter_orphan_timeout_ends_a_job_whose_listener_died(machine):
    vm = busy(machine, runner={"orphan_timeout": LONG})
    update(vm, runner={"orphan_timeout": "200ms"})
    kill_listener(vm)
    completed = vm.event("JobCompleted", 20)["data"]
    assert (completed["result"], completed["cause"]) == ("unknown", "runner_crash")


@shows("shutdown.delivery_timeout")
def test_a_shorter_delivery_timeout_ends_a_machine_that_is_not_heard(machine):
    refusing = False

    def script(call: str, body: Any) -> Any:
        return (503, {}, b"") if call == "events" and refusing else GO_ON

    with stub_controller() as stub:
        stub.script = script
        endless = {"delivery_timeout": LONG}
        vm = pointed_at(machine(IDLE, shutdown=endless), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        stub.commands = [command("c-1", {"shutdown.delivery_timeout": "300ms"})]
        eventually(lambda: stub.events("CommandCompleted"))
        refusing = True
        vm.agent.ctl("drain")
        assert vm.agent.wait() == 75


@shows("runner.drain_settle")
def test_a_shorter_settling_time_ends_an_idle_runner_sooner(machine):
    vm = started(machine, runner={"drain_settle": "10m"})
    update(vm, runner={"drain_settle": 0})
    vm.order("Drain")
    assert vm.agent.wait(15) == 0


@shows("shutdown.grace_period")
def test_a_shorter_grace_period_kills_a_runner_sooner(machine):
    ignoring = {"scenario": "ignores_signals"}
    vm = started(machine, ignoring, shutdown={"grace_period": LONG})
    update(vm, shutdown={"grace_period": "200ms"})
    vm.order("Shutdown", mode="immediate")
    assert vm.agent.wait(15) == 0


@shows("shutdown.force_after")
def test_a_shorter_time_after_a_signal_stops_the_job_sooner(machine):
    vm = busy(machine, shutdown={"force_after": LONG})
    update(vm, shutdown={"force_after": "200ms"})
    vm.agent.signal(signal.SIGTERM)
    assert vm.event("JobCompleted", 15)["data"]["cause"] == "shutdown"


@shows("shutdown.action")
def test_a_machine_that_is_to_be_switched_off_is_switched_off(machine, tmp_path):
    called = tmp_path / "called"
    for name in ("poweroff", "systemctl"):
        write_program(tmp_path / "bin" / name, f'#!/bin/sh\necho "$0" >{called}\n')
    vm = machine(IDLE)
    vm.agent.environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    vm.agent.start()
    vm.event("RunnerRegistered")
    update(vm, shutdown={"action": "poweroff"})
    vm.order("Drain")
    assert vm.agent.wait() == 0
    assert called.exists()


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@shows("logging.level")
def test_another_level_holds_in_every_process(machine):
    vm = started(machine, logging={"level": "error"})
    update(vm, logging={"level": "debug"})
    eventually(lambda: vm.agent.status()["log_level"] == "debug")
    vm.double.push_job(job())
    vm.agent.wait()
    assert any(each["level"] == "debug" for each in vm.agent.lines())


def test_a_level_set_by_a_command_stays_when_other_settings_change(machine):
    vm = started(machine, logging={"level": "error"})
    vm.order("SetLogLevel", level="WARN")
    update(vm, heartbeat={"interval": "400ms"})
    assert vm.agent.status()["log_level"] == "warning"


@shows("logging.redact_secrets")
def test_secrets_are_shown_or_hidden_from_the_next_line_on(machine):
    vm = started(machine)

    def refused() -> int:
        """How often the log has a wrong value that looks like a token."""
        wrong = vm.order("UpdateConfig", config={"logging": {"level": TOKEN}})
        assert wrong["outcome"] == "rejected"
        return vm.agent.log().count(TOKEN)

    assert refused() == 0
    update(vm, logging={"redact_secrets": False})
    shown = refused()
    assert shown
    update(vm, logging={"redact_secrets": True})
    assert refused() == shown


@pytest.mark.slow
@shows("metrics.collection_interval")
def test_a_shorter_collection_interval_brings_more_samples(machine):
    vm = started(machine, metrics={"collection_interval": LONG})
    first = eventually(lambda: sampled(vm))
    assert sampled(vm) == first
    update(vm, metrics={"collection_interval": "100ms"})
    eventually(lambda: sampled(vm) != first)


@shows("metrics.include_disk", "metrics.include_network")
def test_what_is_left_out_of_the_metrics_is_left_out_from_the_next_sample_on(machine):
    vm = started(machine, metrics={"collection_interval": "100ms"})
    eventually(lambda: metrics(vm)["disk_total_bytes"] and metrics(vm)["network"])
    update(vm, metrics={"include_disk": False, "include_network": False})
    eventually(lambda: metrics(vm)["disk_total_bytes"] is None)
    eventually(lambda: set(metrics(vm)["network"]) == {"controller"})


def sampled(vm: Machine) -> dict[str, Any]:
    """The part of it that only another sample changes; empty before the first one."""
    names = ("cpu_percent", "load1", "memory_used_bytes", "disk_used_bytes", "pressure")
    return {name: metrics(vm)[name] for name in names if name in metrics(vm)}


def metrics(vm: Machine) -> dict[str, Any]:
    """The latest sample."""
    return json.loads(vm.agent.ctl("--json", "metrics").stdout)
