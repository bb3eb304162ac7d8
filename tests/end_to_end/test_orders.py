"""What the controller and the operator order, and what comes of it."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request

from tests.end_to_end.conftest import HELD, IDLE, job, pointed_at
from tests.stub_controller import stub_controller
from tests.support import eventually


def idle(machine, **settings):
    vm = machine(IDLE, **settings)
    vm.agent.start()
    vm.event("RunnerRegistered")
    return vm


def busy(machine, **settings):
    vm = machine(HELD, **settings)
    vm.agent.start()
    vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.event("JobStarted")
    return vm


def test_drain_ends_an_idle_machine(machine):
    vm = idle(machine)
    assert vm.order("Drain")["outcome"] == "done"
    assert vm.agent.wait() == 0
    assert vm.types()[-1] == "VMStopped"
    assert vm.events("VMShuttingDown")[0]["data"]["requested_by"] == "controller"
    assert not (vm.double.root / ".runner").exists(), "still registered"


def test_drain_lets_the_job_finish(machine):
    vm = busy(machine)
    vm.order("drain")
    vm.agent.until("draining")
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    assert vm.events("JobCompleted")[0]["data"]["result"] == "succeeded"


def test_a_job_that_slips_into_a_drain_runs(machine):
    vm = idle(machine, runner={"drain_settle": "2s"})
    vm.order("Drain")
    vm.double.push_job(job(name="late"))
    assert vm.agent.wait() == 0
    assert vm.events("JobCompleted")[0]["data"]["result"] == "succeeded"


def test_an_immediate_shutdown_stops_the_job_and_says_why(machine):
    vm = busy(machine)
    vm.order("Shutdown", mode="immediate", reason="rack 7")
    assert vm.agent.wait() == 0
    data = vm.events("JobCompleted")[0]["data"]
    assert (data["result"], data["cause"]) == ("failed", "shutdown")
    assert vm.events("VMShuttingDown")[0]["data"]["detail"] == "rack 7"


def test_a_changed_heartbeat_interval_is_seen_at_the_controller(machine):
    vm = idle(machine, heartbeat={"interval": "30s", "timeout": "60s"})
    before = len(vm.controller.heartbeats(vm.vm))
    answer = vm.order("UpdateConfig", config={"heartbeat": {"interval": "100ms"}})
    assert answer["outcome"] == "done"
    eventually(lambda: len(vm.controller.heartbeats(vm.vm)) > before + 8)
    shown = json.loads(vm.agent.ctl("--json", "config").stdout)
    row = next(each for each in shown if each["key"] == "heartbeat.interval")
    assert (row["value"], row["source"]) == ("100ms", "UpdateConfig")


def test_a_wrong_configuration_is_rejected_whole(machine):
    vm = idle(machine)
    wrong = {
        "heartbeat": {"interval": "100ms", "intervall": "1s"},
        "pool_id": "elsewhere",
        "logging": {"level": "loud"},
    }
    answer = vm.order("UpdateConfig", config=wrong)
    assert answer["outcome"] == "rejected"
    for part in ("heartbeat.interval", "pool_id", "logging.level", "run time"):
        assert part in answer["reason"]
    shown = json.loads(vm.agent.ctl("--json", "config").stdout)
    row = next(each for each in shown if each["key"] == "heartbeat.interval")
    assert row["value"] == "500ms"


def test_the_log_level_changes_in_every_process(machine):
    vm = idle(machine, logging={"level": "warning"})
    assert vm.order("set_log_level", level="debug")["outcome"] == "done"
    eventually(lambda: vm.agent.status()["log_level"] == "debug")
    vm.double.push_job(job())
    vm.agent.wait()
    debugging = {each["component"] for each in vm.agent.lines()}
    assert "arbiter" in debugging


def command(number: str, kind: object, parameters: object = None, **more) -> dict:
    return {"id": number, "type": kind, "parameters": parameters, **more}


def test_what_makes_no_sense_is_rejected_each_with_its_reason(machine):
    deep: dict = {}
    for _ in range(30):
        deep = {"deeper": deep}
    nonsense = [
        (command("c-1", "Reboot"), "unknown command 'Reboot'"),
        (command("c-2", "SetLogLevel", {"level": "loud"}), "level"),
        (command("c-3", "Shutdown", {"mode": "never"}), "mode"),
        (command("c-4", "Drain", []), "parameters is not an object"),
        (command("c-5", "Drain", deep), "nested deeper"),
        (command("c-6", "Drain", {"x": "y" * 40000}), "larger than"),
        (command("c-7", "Drain", None, expires_at="2020-01-01T00:00:00Z"), "expired"),
        (command("c-8", "Drain", None, expires_at="soon"), "expires_at"),
        (command("c-9", 7), "type is not a text"),
        (command("c-1", "Drain"), None),
    ]
    with stub_controller() as stub:
        vm = pointed_at(machine(IDLE), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        stub.commands = [raw for raw, _ in nonsense] + [
            None,
            "Drain",
            {"type": "Drain"},
        ]
        eventually(lambda: len(stub.events("CommandCompleted")) >= 9)
        eventually(lambda: len(stub.events("Error")) >= 3, what="the malformed ones")
        answers = {
            event["data"]["command_id"]: event["data"]
            for event in stub.events("CommandCompleted")
        }
        for raw, reason in nonsense:
            if reason:
                assert answers[raw["id"]]["outcome"] == "rejected"
                assert reason in answers[raw["id"]]["reason"]
        assert len(stub.events("CommandCompleted")) == len(answers)
        assert vm.agent.state() == "idle"


def test_a_command_that_comes_twice_is_obeyed_and_answered_once(machine):
    with stub_controller() as stub:
        vm = pointed_at(machine(IDLE), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        stub.commands = [command("c-1", "SetLogLevel", {"level": "info"})]
        eventually(lambda: stub.events("CommandCompleted"))
        stub.commands = [
            command("c-1", "SetLogLevel", {"level": "debug"}),
            command("c-2", "SetLogLevel", {"level": "warning"}),
        ]
        eventually(lambda: len(stub.events("CommandCompleted")) == 2)
        assert vm.agent.status()["log_level"] == "warning"
        vm.agent.kill()
        vm.agent.start()
        vm.agent.until("idle")
        stub.commands = [command("c-2", "Drain"), command("c-3", "Drain")]
        assert vm.agent.wait() == 0
        # Of a MIGlet that was killed before it heard of a delivery the same event,
        # with the same id, comes again.
        answers = {
            each["id"]: each["data"]["command_id"]
            for each in stub.events("CommandCompleted")
        }
        assert [*answers.values()] == ["c-1", "c-2", "c-3"]


def test_an_expired_command_is_not_obeyed(machine):
    vm = idle(machine)
    number = vm.controller.command(vm.vm, "Drain", {}, "2020-01-01T00:00:00Z")
    answer = vm.answer(number)
    assert answer["outcome"] == "rejected"
    assert "expired" in answer["reason"]
    assert vm.agent.state() == "idle"


def test_a_credential_is_rotated_when_the_new_one_works(machine):
    vm = idle(machine)
    assert vm.order("RotateCredentials")["outcome"] == "done"


def test_the_operator_can_drain(machine):
    vm = busy(machine)
    assert vm.agent.ctl("drain", "--reason", "lunch").returncode == 0
    vm.agent.until("draining")
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    data = vm.events("VMShuttingDown")[0]["data"]
    assert (data["detail"], data["requested_by"]) == ("lunch", "operator")


def test_the_operator_sees_what_is_going_on(machine):
    vm = busy(machine)
    status = vm.agent.status()
    assert status["state"] == "job_running"
    assert set(status["workers"]) == {
        "runner-watcher",
        "heartbeat-sender",
        "metrics-sampler",
        "command-poller",
    }
    assert status["job"]["repository"]
    assert "job_running" in vm.agent.ctl("status").stdout
    assert "JobStarted" in vm.agent.ctl("events").stdout
    assert "Running job" in vm.agent.ctl("runner-log").stdout
    assert json.loads(vm.agent.ctl("--json", "metrics").stdout)["memory_total_bytes"]
    assert vm.agent.ctl("log-level", "warning").returncode == 0
    vm.double.finish_step()
    vm.agent.wait()
    assert vm.agent.ctl("status").returncode == 3


def fetched(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_and_health_are_served_and_a_job_turns_nothing_red(machine, free_port):
    listen = f"127.0.0.1:{free_port}"
    vm = busy(machine, metrics={"listen": listen, "collection_interval": "200ms"})
    eventually(lambda: fetched(f"http://{listen}/readyz")[0] == 200, 5, "readyz")
    assert fetched(f"http://{listen}/healthz")[0] == 200
    page = fetched(f"http://{listen}/metrics")[1]
    assert 'miglet_state{state="job_running"} 1.0' in page
    assert "miglet_worker_restarts_total" in page
    vm.double.finish_step()
    vm.agent.wait()


def test_a_changed_file_is_read_again_on_sighup(machine):
    vm = idle(machine, heartbeat={"interval": "30s", "timeout": "60s"})
    text = vm.agent.config.read_text()
    vm.agent.config.write_text(text.replace("30s", "100ms"))
    before = len(vm.controller.heartbeats(vm.vm))
    vm.agent.signal(signal.SIGHUP)
    eventually(lambda: len(vm.controller.heartbeats(vm.vm)) > before + 8)


def test_a_changed_file_is_applied_without_a_signal(machine):
    vm = idle(machine, heartbeat={"interval": "30s", "timeout": "60s"})
    before = len(vm.controller.heartbeats(vm.vm))
    fresh = vm.agent.config.with_suffix(".fresh")
    fresh.write_text(vm.agent.config.read_text().replace("30s", "100ms"))
    fresh.replace(vm.agent.config)
    eventually(lambda: len(vm.controller.heartbeats(vm.vm)) > before + 8)


def test_a_file_with_a_mistake_changes_nothing_on_sighup(machine):
    vm = idle(machine)
    vm.agent.config.write_text("pool_id: [")
    vm.agent.signal(signal.SIGHUP)
    eventually(
        lambda: any(
            "by SIGHUP rejected" in line and "miglet.yaml" in line
            for line in vm.agent.log().splitlines()
        )
    )
    assert vm.agent.state() == "idle"
