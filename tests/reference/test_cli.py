"""``miglet-controller`` with a running controller: its verbs as people type them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable

import pytest

from miglet.reference.cli import BadArgument, main, parameters, plain
from tests.reference_process import COMMAND, ReferenceController
from tests.reference_samples import event
from tests.support import eventually

pytestmark = pytest.mark.integration


def post_event(controller: ReferenceController, body) -> None:
    url = controller.url(f"vms/{body['vm_id']}/events")
    headers = {"Idempotency-Key": body["id"]}
    answer = controller.session.post(url, json=body, headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def vm(controller) -> str:
    """A machine that has started and that no other test knows."""
    name = f"vm-{uuid.uuid4()}"
    post_event(controller, event("VMStarted", vm=name))
    return name


def access(controller: ReferenceController, *verb: object) -> list[str]:
    """A verb with its arguments, and with what reaches the controller."""
    options = ["--endpoint", controller.endpoint, "--token-file"]
    return [*map(str, verb), *options, str(controller.token_path)]


def command_line(controller: ReferenceController, *verb: object) -> list[str]:
    """The same for a process of its own."""
    return [*COMMAND, *access(controller, *verb)]


Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Typed:
    """Runs the program's main function here: a process of its own imports for long."""

    def main_with(*words: object) -> subprocess.CompletedProcess[str]:
        typed = [*map(str, words)]
        status = main(typed)
        return subprocess.CompletedProcess(typed, status, *capsys.readouterr())

    return main_with


@pytest.fixture
def typed(run: Typed, controller: ReferenceController) -> Typed:
    """The same, with access to the controller."""
    return lambda *verb: run(*access(controller, *verb))


def test_vms_lists_each_machine_with_state_and_health(controller, vm, typed):
    post_event(controller, event(vm=vm, sequence=3))
    (line,) = [x for x in typed("vms").stdout.splitlines() if vm in x]
    assert line.split()[:4] == [vm, "idle", "healthy", "2"]
    assert line.endswith("1 GAPS")


def test_an_event_of_a_type_that_nobody_knows_is_printed_as_well(controller, vm, typed):
    post_event(controller, {**event(vm=vm, sequence=2), "type": "RunnerUpdated"})
    printed = typed("events", vm)
    assert printed.returncode == 0
    assert "RunnerUpdated" in printed.stdout.splitlines()[1]


def test_events_prints_a_line_each(controller, vm, typed):
    finished = {**event("JobCompleted", vm=vm, sequence=2), "job_id": "555000111"}
    post_event(controller, finished)
    lines = typed("events", vm).stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["1", "10:30:00.123", "VMStarted"],
        ["2", "10:30:00.123", "JobCompleted"],
    ]
    assert "job_id=555000111" in lines[1]
    assert "result=failed cause=failure exit_code=1" in lines[1]


def test_events_as_json_are_as_they_were_sent(controller, vm, typed):
    sent = event(vm=vm, sequence=2)
    post_event(controller, sent)
    lines = typed("events", vm, "--json").stdout.splitlines()
    assert json.loads(lines[1]) == sent


def test_follow_prints_what_comes_until_interrupted(controller, vm):
    command = command_line(controller, "events", vm, "--follow")
    following = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    assert "VMStarted" in following.stdout.readline()
    post_event(controller, event("JobHeartbeat", vm=vm))
    assert following.stdout.readline().split()[0] == "-"
    following.send_signal(signal.SIGINT)
    assert following.wait(10) == 130
    following.stdout.close()


def test_what_machines_say_cannot_move_the_cursor(controller, vm, typed):
    post_event(controller, event("JobStarted", vm=vm, sequence=2, name="\x1b[2Jx\n"))
    ended = typed("events", vm)
    assert "name=?[2Jx?" in ended.stdout
    assert plain("a\x9bb\u202ec") == "a?b?c"


def test_command_prints_the_id_of_what_it_queued(controller, vm, typed):
    ended = typed("command", vm, "set_log_level", "level=debug")
    status = controller.ask(f"vms/{vm}/commands/{ended.stdout.strip()}")
    assert (status["type"], status["parameters"]) == ("SetLogLevel", {"level": "debug"})
    assert status["expires_at"] is None


@pytest.mark.parametrize(
    "type, outcome, exit_status, printed, message",
    [
        ("Drain", "done", 0, ["accepted"], ""),
        ("shutdown", "done", 0, ["accepted"], ""),
        ("RotateCredentials", "done", 0, ["done"], ""),
        ("Drain", "rejected", 1, [], "rejected: too late"),
    ],
)
def test_command_waits_for_the_outcome(
    controller, vm, type, outcome, exit_status, printed, message
):
    command = command_line(controller, "command", vm, type, "--wait")
    waiting = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: controller.vm(vm)["counts"]["commands"])
    (queued,) = controller.ask(f"vms/{vm}/commands")["commands"]
    answer = {"command_id": queued["id"], "outcome": outcome, "reason": "too late"}
    post_event(controller, event("CommandCompleted", vm=vm, sequence=2, **answer))
    stdout, stderr = waiting.communicate(timeout=20)
    assert stdout.splitlines() == [queued["id"], *printed]
    assert waiting.returncode == exit_status
    assert message in stderr


def test_refusals_are_one_line(controller, vm, typed):
    cases = [
        (("command", vm, "Reboot"), 77, "no command 'Reboot'"),
        (("command", vm, "Drain", "now=true"), 77, "'now' was unexpected"),
        (("command", vm, "Drain", "now"), 2, "'now' is not key=value"),
        (("command", "nobody", "Drain"), 77, "no machine 'nobody'"),
        (("events", "nobody"), 77, "no machine 'nobody'"),
    ]
    for verb, exit_status, message in cases:
        ended = typed(*verb)
        assert (ended.returncode, ended.stdout) == (exit_status, ""), verb
        assert message in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_a_controller_that_does_not_answer_is_reported_in_one_line(tmp_path, run):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = tmp_path / "token"
    cases = [
        (("--endpoint", f"http://127.0.0.1:{port}"), 69, "no usable answer"),
        (("--endpoint", "nonsense"), 69, "no usable answer"),
        (("--token-file", str(token)), 78, "cannot read the token"),
        (("--ca", str(token)), 78, "cannot use the certificates"),
    ]
    for options, exit_status, message in cases:
        ended = run("vms", *options)
        assert ended.returncode == exit_status, ended
        assert message in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_words_become_parameters():
    assert parameters([]) == {}
    assert parameters(["mode=immediate", "reason=a=b"]) == {
        "mode": "immediate",
        "reason": "a=b",
    }
    assert parameters(
        ["config.heartbeat.interval=5s", "config.heartbeat.timeout=60", "config.x=null"]
    ) == {"config": {"heartbeat": {"interval": "5s", "timeout": 60}, "x": None}}
    assert parameters(['config={"a": [1]}']) == {"config": {"a": [1]}}


@pytest.mark.parametrize("word", ["x", "=1", "a..b=1", ".a=1"])
def test_a_word_that_is_no_parameter_is_refused(word):
    with pytest.raises(BadArgument, match="not key=value"):
        parameters([word])


def test_a_key_cannot_be_value_and_group():
    with pytest.raises(BadArgument, match="has a value already"):
        parameters(["a=1", "a.b=2"])


def test_import_stores_the_events_of_a_serial_log_once(controller, tmp_path, typed):
    name = f"vm-{uuid.uuid4()}"
    events = [event("VMStarted", vm=name), event("JobCompleted", vm=name, sequence=2)]
    lines = [f"[ 12.3] console: MIGLET-EVENT {json.dumps(each)}\r\n" for each in events]
    log = tmp_path / "serial.log"
    log.write_text("".join(["login: \n", lines[1], "noise\n", lines[0]]))
    first = typed("import", log)
    assert first.returncode == 0, first.stderr
    assert first.stdout == "2 events imported, 0 were stored already\n"
    again = typed("import", log)
    assert again.stdout == "0 events imported, 2 were stored already\n"
    stored = typed("events", name, "--json").stdout.splitlines()
    assert [json.loads(each) for each in stored] == events


def test_import_names_what_it_could_not_import_and_imports_the_rest(
    controller, tmp_path, typed
):
    name = f"vm-{uuid.uuid4()}"
    good = event("VMStarted", vm=name)
    refused = {**event(vm=name, sequence=2), "timestamp": "yesterday"}
    texts = [json.dumps(good), '{"torn', json.dumps(refused)]
    log = tmp_path / "events"
    log.write_text("".join(f"MIGLET-EVENT {text}\n" for text in texts))
    done = typed("import", log)
    assert done.returncode == 1
    assert done.stdout == "1 events imported, 0 were stored already\n"
    assert "line 2" in done.stderr and refused["id"] in done.stderr


def test_import_of_a_file_that_is_not_there_says_so(controller, tmp_path, typed):
    done = typed("import", tmp_path / "nothing")
    assert done.returncode == 78
    assert "nothing: No such file" in done.stderr
