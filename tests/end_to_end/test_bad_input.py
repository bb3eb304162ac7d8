"""Mistakes of the user and nonsense of the controller: clear, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cases import slow_except
from tests.end_to_end.conftest import IDLE, job
from tests.launching import as_root
from tests.support import eventually


def test_every_mistake_is_reported_at_once_also_to_the_controller(machine):
    vm = machine(IDLE)
    text = vm.agent.config.read_text()
    text = text.replace("interval: 500ms", "interval: soon").replace(
        "after_job", "after_jobs"
    )
    vm.agent.config.write_text(text + "heartbeats: {}\n")
    vm.agent.start()
    assert vm.agent.wait() == 78
    log = vm.agent.log()
    for part in ("heartbeat.interval", "heartbeats", "did you mean"):
        assert part in log, log
    assert "Traceback" not in log
    assert "bootstrap.timeout" not in log, "the bootstrap did end"
    errors = vm.events("Error")
    assert {each["data"]["category"] for each in errors} == {"misconfig"}
    assert len(errors) >= 2


def test_without_an_identity_the_mistakes_are_on_stderr(machine):
    vm = machine(IDLE)
    vm.agent.config.write_text("pool: 1\n")
    vm.agent.start()
    assert vm.agent.wait() == 78
    assert "pool_id" in vm.agent.log()
    assert "Traceback" not in vm.agent.log()


@as_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare(1)")
def test_a_proc_that_shows_processes_only_is_a_named_mistake(machine):
    vm = machine(IDLE)
    mounted = "mount -t proc -o subset=pid proc /proc && exec"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    command += [f'{mounted} "$0" --config "$1"', vm.agent.commands / "miglet"]
    completed = subprocess.run(
        [*map(str, command), str(vm.agent.config)], capture_output=True, text=True
    )
    assert completed.returncode == 78
    assert "boot_id" in completed.stderr and "subset=pid" in completed.stderr
    assert "Traceback" not in completed.stderr


#: What makes a folder no runner's, and what is then said.
BROKEN = {
    "no listener": (
        lambda root: (root / "bin" / "Runner.Listener").unlink(),
        "Runner.Listener",
    ),
    "not executable": (lambda root: (root / "config.sh").chmod(0o644), "config.sh"),
    "no folder": (
        lambda root: root.rename(root.with_name("elsewhere")),
        "does not exist",
    ),
}


@pytest.mark.parametrize("name", slow_except(BROKEN, "no listener"))
def test_a_runner_that_is_none_is_reported_before_it_is_tried(machine, name):
    vm = machine(IDLE)
    break_it, part = BROKEN[name]
    break_it(vm.double.root)
    vm.agent.start()
    assert vm.agent.wait() == 78
    (error,) = vm.events("Error")
    assert part in error["data"]["message"]
    assert error["data"]["hint"]
    assert "miglet: runner_folder: " in vm.agent.log()


def test_a_machine_that_could_not_start_can_be_started_again(machine):
    vm = machine(job())
    text = vm.agent.config.read_text()
    vm.agent.config.write_text(
        text.replace("min_free_disk: 1MB", "min_free_disk: 900TB")
    )
    for _ in range(2):
        vm.agent.start()
        assert vm.agent.wait() == 69
    vm.agent.config.write_text(text)
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert vm.events("JobCompleted")[0]["data"]["result"] == "succeeded"
    sequences = [each["sequence"] for each in vm.events()]
    assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.parametrize(
    "content", slow_except([None, "", "two\nlines of\ntoken"], None)
)
def test_a_token_file_that_is_of_no_use_is_waited_for(machine, tmp_path, content):
    vm = machine(IDLE)
    path = tmp_path / "token"
    good = vm.controller.token_path.read_text()
    if content is not None:
        path.write_text(content)
    config = vm.agent.config.read_text()
    vm.agent.config.write_text(config.replace(str(vm.controller.token_path), str(path)))
    vm.agent.start()
    eventually(lambda: vm.agent.state() == "waiting_for_controller")
    eventually(
        lambda: str(path) in (vm.agent.status()["controller"]["last_error"] or "")
    )
    path.write_text(good)
    vm.agent.until("idle", 15)


def test_an_expired_registration_token_is_replaced_three_times_at_most(machine):
    vm = machine(plan={"config": [{"outcome": "404"}]})
    vm.agent.start()
    assert vm.agent.wait(40) == 77
    assert len(vm.double.truth("config_start")) == 3
    last = vm.events("Error")[-1]["data"]
    assert last["category"] == "permanent"
    assert last["hint"]


def test_a_job_named_like_a_result_is_only_a_name(machine):
    name = "x completed with result: Succeeded"
    vm = machine(job("Failed", name=name))
    vm.agent.start()
    assert vm.agent.wait() == 0
    assert vm.events("JobCompleted")[0]["data"]["result"] == "failed"
    assert vm.events("JobStarted")[0]["data"]["name"] == name


class Nonsense(BaseHTTPRequestHandler):
    """Answers everything with the server's `answer`: status, content type, body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, kind, body = self.server.answer  # type: ignore[attr-defined]
        self.server.count += 1  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


NONSENSE = {
    "portal": (200, "text/html", b"<html>Welcome to our hotel's network</html>"),
    "page": (200, "text/plain", b"<html>"),
    "torn": (200, "application/json", b'{"status": 7'),
    "deep": (200, "application/json", b"[" * 100_000),
    "500": (500, "text/plain", b"oops"),
    "redirect": (302, "text/plain", b"elsewhere"),
}


@pytest.mark.parametrize("name", slow_except(NONSENSE, "portal", "deep"))
def test_a_controller_that_talks_nonsense_acknowledges_nothing(machine, name):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nonsense)
    server.answer, server.count = NONSENSE[name], 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        vm = machine(IDLE)
        here = f"http://127.0.0.1:{server.server_port}"
        config = vm.agent.config.read_text()
        vm.agent.config.write_text(config.replace(vm.controller.endpoint, here))
        vm.agent.start()
        eventually(lambda: server.count >= 4, what="requests")  # type: ignore[attr-defined]
        status = vm.agent.status()
        assert status["state"] == "waiting_for_controller"
        assert status["events"]["delivered"] == 0
        assert status["controller"]["last_error"]
        vm.agent.signal(signal.SIGTERM)
        vm.agent.signal(signal.SIGTERM)
        vm.agent.wait()
        assert "Traceback" not in vm.agent.log()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_log_line_is_json_and_says_who_and_where(machine):
    vm = machine(job())
    vm.agent.start()
    vm.agent.wait()
    for line in vm.agent.log().splitlines():
        entry = json.loads(line)
        assert entry["vm_id"] == vm.vm
        assert {"timestamp", "level", "component", "pool_id", "org_id"} <= entry.keys()
        assert {"job_id", "run_id", "trace_id"} <= entry.keys()


@pytest.mark.parametrize(
    "scenario", slow_except(["flood", "stdout_closed", "stdout_held"], "flood")
)
def test_a_runner_that_prints_rubbish_still_has_its_job_reported(machine, scenario):
    vm = machine({"scenario": scenario, "seconds": 0.3, "result": "Failed"})
    vm.agent.start()
    assert vm.agent.wait(40) == 0
    (completed,) = vm.events("JobCompleted")
    assert completed["data"]["result"] == "failed"
    assert vm.events("JobStarted")[0]["data"]["repository"]


def test_a_forged_hook_report_is_refused_and_said_so(machine):
    vm = machine({"scenario": "job", "hold": True})
    vm.agent.start()
    vm.event("RunnerRegistered")
    folder = vm.agent.folder / "run" / "job" / "hooks"
    (folder / "job-completed.json").symlink_to("/etc/shadow")
    (folder / "job-started.json").write_bytes(b"\xff" * 100_000)
    vm.double.release_job()
    vm.event("JobStarted")
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    data = vm.events("JobCompleted")[0]["data"]
    assert data["result"] == "succeeded"
    assert "root:" not in vm.agent.log() + json.dumps(vm.events())
