"""``miglet-ctl`` as it is typed, against a server with prepared answers."""

from __future__ import annotations

import copy
import json
import os
import pty
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from miglet.control import rpc
from miglet.control.server import ControlServer
from miglet.ctl import __main__ as ctl
from miglet.ctl import client, view
from tests.support import eventually

pytestmark = pytest.mark.integration

STATUS = {
    "state": "job_running",
    "since": "2026-01-15T10:30:00.123Z",
    "version": "0.1.0",
    "pid": 12,
    "uptime_seconds": 3725.2,
    "vm_id": "vm-456",
    "pool_id": "pool-123",
    "org_id": "org-789",
    "degraded": False,
    "workers": {
        name: {"pid": 101, "healthy": True, "restarts": 0, "last_seen_seconds": 0.4}
        for name in ("runner-watcher", "heartbeat-sender")
    },
    "runner": {
        "state": "running",
        "name": "vm-456-ab12",
        "version": "2.329.0",
        "pid": 77,
        "adopted": True,
    },
    "job": {
        "job_id": "42",
        "run_id": "777001",
        "name": "build",
        "repository": "octo/widget",
        "started_at": "2026-01-15T10:30:00.123Z",
        "elapsed_seconds": 241.0,
        "trace_id": "t",
    },
    "controller": {"reachable": True, "last_contact_seconds": 2.0, "last_error": None},
    "events": {"pending": 1, "delivered": 12, "rejected": 0, "dropped": 0},
    "timeline": {"kernel": 0.0, "miglet": 25_920_000.0, "idle": 25_920_400.0},
    "log_level": "info",
    "last_error": None,
}


def test_the_boot_is_told_from_the_start_of_miglet():
    (line,) = [each for each in view.status_lines(STATUS) if each.startswith("boot")]
    assert line.split(maxsplit=1)[1] == "7 h 12 min after the kernel, idle +0.4 s"


EVENTS = [
    {
        "sequence": 3,
        "type": "JobStarted",
        "timestamp": "2026-01-15T10:30:00.123Z",
        "status": "delivered",
        "job_id": "42",
    }
]

ANSWERS = {
    "status": STATUS,
    "events": EVENTS,
    "drain": {"accepted": True, "state": "draining"},
    "shutdown": {"accepted": False, "reason": "already shutting down"},
    "set_log_level": {"accepted": True},
    "config": [
        {"key": "pool_id", "value": "p", "source": "environment", "overrode": None},
        {"key": "github.labels", "value": ["a", "b"], "source": "x", "overrode": None},
    ],
    "metrics": {"cpu_percent": 1.5, "memory_used_bytes": 1.5 * 2**30, "net": {"a": 1}},
    "runner_log": {"lines": ["Listening for Jobs", "evil \x1b[2J"]},
}


def serve_for_ever(path: str, answers: dict, told: int) -> None:
    """Answer from `answers`, and write each call to the descriptor `told`."""

    def answer(method, params, peer):
        os.write(told, json.dumps([method, params]).encode() + b"\n")
        if method not in answers:
            raise rpc.RpcError(rpc.UNKNOWN_METHOD, f"there is no method {method}")
        return answers[method]

    server = ControlServer(path, answer, frozenset({"drain", "shutdown"}))
    os.write(told, b"ready\n")
    while True:
        if select.select([server], [], [], 0.05)[0]:
            server.serve()
        server.publish({"state": "idle", "job": {"name": "x\x1b[31m"}, "n": 1})


@contextmanager
def forked(work, *arguments):
    """A child process that does `work(*arguments)`, killed in the end."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def agent(path: Path, **answers):
    """A server at `path`; yields a file with a line for each call it got."""
    reading, writing = os.pipe()
    with (
        open(reading) as calls,
        forked(serve_for_ever, str(path), {**ANSWERS, **answers}, writing),
    ):
        os.close(writing)
        assert calls.readline() == "ready\n"
        yield calls


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def calls(path):
    with agent(path) as calls:
        yield calls


def ctl_at(path: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """`miglet-ctl` with `arguments`, having found its socket in the environment."""
    return subprocess.run(
        [sys.executable, "-m", "miglet.ctl", *arguments],
        env={**os.environ, "MIGLET_SOCKET": str(path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=30,
        **options,
    )


def test_status_is_a_short_table_for_people(path, calls):
    shown = ctl_at(path, "status")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0] == "MIGlet 0.1.0, pid 12, up 1 h 2 min"
    assert "state       job_running since 2026-01-15 10:30:00 UTC" in lines
    assert "controller  reachable, last contact 2.0 s ago" in lines
    job = "job         build of octo/widget (run 777001, job 42) for 4 min 1 s"
    assert job in lines
    assert "events      1 pending, 12 delivered, 0 rejected, 0 dropped" in lines
    assert any(line.startswith("runner-watcher    101  healthy  0") for line in lines)
    assert max(map(len, lines)) < 80


@pytest.mark.parametrize("order", [["--json", "status"], ["status", "--json"]])
def test_status_for_scripts_is_the_very_object(path, calls, order):
    assert json.loads(ctl_at(path, *order).stdout) == STATUS


def test_the_socket_may_be_named_before_or_after_the_verb(path, calls):
    for arguments in (["--socket", str(path), "status"], ["status", "--socket", path]):
        assert ctl_at("/nowhere", *map(str, arguments)).returncode == 0


def test_what_is_wrong_is_in_capitals():
    ill = copy.deepcopy(STATUS)
    ill["degraded"] = True
    ill["workers"]["runner-watcher"]["healthy"] = False
    ill["controller"] = {"reachable": False, "last_error": "refused"}
    text = "\n".join(view.status_lines(ill))
    assert "DEGRADED" in text and "UNHEALTHY" in text and "UNREACHABLE: refused" in text


def test_no_control_character_reaches_the_terminal(path):
    evil = copy.deepcopy(STATUS)
    evil["job"]["name"] = "a\x1b[2J\x07\r\n\x9b31m\u202eb\x00\x7f"
    with agent(path, status=evil):
        shown = ctl_at(path, "status").stdout
        as_json = ctl_at(path, "status", "--json").stdout
    assert "build" not in shown and "octo/widget" in shown
    bad = set("\x1b\x07\r\x9b\u202e\x00\x7f")
    assert not bad & set(shown)
    assert not (bad - {"\x7f"}) & set(as_json)


@pytest.mark.parametrize(
    "arguments, call, shown",
    [
        (["events"], ["events", {"limit": 20}], "JobStarted"),
        (["events", "-n", "5"], ["events", {"limit": 5}], "delivered"),
        (["drain"], ["drain", {"reason": "miglet-ctl"}], "accepted"),
        (["drain", "--reason", "tired"], ["drain", {"reason": "tired"}], "draining"),
        (["log-level", "debug"], ["set_log_level", {"level": "debug"}], "accepted"),
        (["config"], ["config", {}], "github.labels  a, b   x"),
        (["metrics"], ["metrics", {}], "memory_used_bytes  1.5 GiB"),
        (["runner-log", "-n", "2"], ["runner_log", {"lines": 2}], "evil ?[2J"),
        (["doctor"], ["status", {}], "Nothing is wrong."),
    ],
)
def test_each_verb_asks_and_shows(path, calls, arguments, call, shown):
    done = ctl_at(path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(calls.readline()) == call
    assert shown in done.stdout


@pytest.mark.parametrize(
    "arguments, params",
    [
        (["shutdown"], {"mode": "after_job", "reason": "miglet-ctl"}),
        (
            ["shutdown", "--immediate", "--reason", "r"],
            {"mode": "immediate", "reason": "r"},
        ),
    ],
)
def test_a_refused_order_is_told_with_the_reason(path, calls, arguments, params):
    done = ctl_at(path, *arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert "refused: reason=already shutting down" in done.stderr
    assert json.loads(calls.readline()) == ["shutdown", params]


def test_the_lack_of_a_sample_is_told(path):
    with agent(path, metrics=None):
        assert ctl_at(path, "metrics").stdout == "no sample yet\n"


def test_watch_shows_a_line_for_each_change(path, calls):
    with watching(path, "watch") as watcher:
        lines = [watcher.stdout.readline().decode() for _ in range(3)]
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(10) == 130
        assert watcher.stderr.read() == b""
    assert all(line[8:] == "  idle  job=name=x?[31m n=1\n" for line in lines)


def test_watch_for_scripts_is_a_json_document_a_line(path, calls):
    with watching(path, "watch", "--json") as watcher:
        assert json.loads(watcher.stdout.readline())["state"] == "idle"
        watcher.terminate()


def test_a_reader_that_has_seen_enough_is_no_error(path, calls):
    with watching(path, "watch") as watcher:
        watcher.stdout.readline()
        watcher.stdout.close()
        assert watcher.wait(10) == 0
        assert watcher.stderr.read() == b""


def watching(path: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "miglet.ctl", "--socket", str(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_the_end_of_the_agent_ends_watch(path):
    with agent(path), watching(path, "watch") as watcher:
        watcher.stdout.readline()
        os.kill(agent_pid_of(path), signal.SIGKILL)
        assert watcher.wait(10) == 4
        assert b"closed the connection" in watcher.stderr.read()


def agent_pid_of(path: Path) -> int:
    """The pid of who listens at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(raw[:4], sys.byteorder)


def test_nobody_there_is_not_running(path):
    done = ctl_at(path, "status")
    assert done.returncode == 3
    assert "not running" in done.stderr and "systemctl status" in done.stderr
    assert done.stderr.count("\n") == 1
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert ctl_at(path, "status").returncode == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be others")
def test_no_access_says_what_to_do(path, calls, capfd):
    os.chmod(path.parent, 0o700)
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os._exit(ctl.main(["--socket", str(path), "status"]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    told = capfd.readouterr().err
    assert "no access" in told and "sudo" in told and "group miglet" in told


def say_and_close(listener: socket.socket, answer: bytes) -> None:
    """Answer whoever calls with `answer`, whatever they ask."""
    while True:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(answer)
        connection.close()


@pytest.mark.parametrize(
    "answer, told",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"[]\n", "not what MIGlet answers"),
        (b"{}\n", "no answer of MIGlet's"),
        (b'{"jsonrpc":"2.0","id":1,"result":[1]}\n', "not what MIGlet answers"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}\n', "not MIGlet's status"),
        (b'{"jsonrpc":"2.0","id":1,"error":7}\n', "not what MIGlet answers"),
        (b'{"error":{"code":-32001,"message":"not permitted: x"}}\n', "sudo"),
        (b'{"jsonrpc":"2.0","id":1,"res', "closed the connection"),
        (b"", "closed the connection"),
        (b"x" * 3_000_000, "no end"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_strange_answer_is_unknown(path, answer, told):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with forked(say_and_close, listener, answer):
            done = ctl_at(path, "status")
    assert done.returncode == 4
    assert told in done.stderr and done.stderr.count("\n") == 1


def test_what_was_said_before_the_door_closed_is_heard(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        connection = client.Connection(str(path))
        answering, _ = listener.accept()
        answering.sendall(rpc.failure(None, rpc.RpcError(rpc.BUSY, "try again")))
        answering.close()
        with pytest.raises(client.Failed, match="try again"):
            connection.call("status")
        connection._socket.close()


@pytest.mark.slow
def test_an_agent_that_does_not_answer_is_unknown_after_five_seconds(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        began = time.monotonic()
        done = ctl_at(path, "status")
    assert done.returncode == 4 and "within 5 s" in done.stderr
    assert 5 <= time.monotonic() - began < 8


def test_wrong_arguments_are_told(path):
    assert "COMMAND" in ctl_at(path).stderr
    assert ctl_at(path, "explode").returncode == 2
    assert ctl_at(path, "log-level").returncode == 2
    assert ctl_at(path, "events", "-n", "many").returncode == 2


def test_every_verb_is_in_the_help(path):
    shown = ctl_at(path, "--help").stdout
    for name, verb in ctl.SUBCOMMANDS.items():
        assert name in shown
        assert verb.run.__doc__


def test_a_narrow_terminal_gets_no_wrapped_table(path, calls):
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = ["-m", "miglet.ctl", "--socket", str(path), "events"]
        command = [sys.executable, *arguments]
        shell = f"stty cols 30; exec {shlex.join(command)}"
        os.execvp("sh", ["sh", "-c", shell])
    shown = b""
    while select.select([terminal], [], [], 10)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # EIO: the other side has gone
            break
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0
    lines = shown.decode().split("\r\n")
    assert lines[1].endswith("…") and max(map(len, lines)) == 30


ILLS = {
    "given up": {"state": "error", "last_error": "token refused"},
    "waiting_for_controller after": {"state": "waiting_for_controller"},
    "idle without a runner": {"state": "idle", "runner": None},
    "runner-watcher is not healthy": {"workers": {"runner-watcher": {"restarts": 7}}},
    "unreachable (last heard 2 min 0 s ago)": {
        "controller": {"reachable": False, "last_contact_seconds": 120}
    },
    "unreachable (never heard)": {"controller": {"reachable": False}},
    "call to the controller fails: GET commands: 500": {
        "controller": {"reachable": True, "last_error": "GET commands: 500"}
    },
    "rejected 1 event.": {"events": {"rejected": 1}},
    "2 events had to be dropped": {"events": {"dropped": 2}},
    "500 events wait": {"events": {"pending": 500}},
    "runs degraded": {"degraded": True},
}


@pytest.mark.parametrize("told", ILLS)
def test_the_doctor_finds_it(told):
    [complaint] = view.complaints({**STATUS, **ILLS[told]})
    assert told in complaint
    assert complaint.endswith(".") and "  " not in complaint


def test_the_doctor_finds_nothing_wrong_with_the_well():
    assert view.complaints(STATUS) == []


def test_the_doctor_tells_by_the_exit_status(path):
    with agent(path, status={**STATUS, "state": "error"}):
        done = ctl_at(path, "doctor")
        as_json = json.loads(ctl_at(path, "doctor", "--json").stdout)
    assert done.returncode == 1
    assert done.stdout.startswith("* MIGlet has given up")
    assert max(map(len, done.stdout.splitlines())) < 80
    assert len(as_json["complaints"]) == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*STATUS, *STATUS["job"], "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@example({"state": {"uptime_seconds": float("inf")}})
@given(st.dictionaries(st.sampled_from(list(STATUS)), ANYTHING))
def test_any_status_can_be_shown(status):
    for line in [*view.status_lines(status), *view.complaints(status)]:
        assert line.isprintable() or view.clean(line) == line
    view.change_line("12:00:00", status)
    view.measure_lines(status)


@pytest.mark.parametrize(
    "seconds, said",
    [
        (0.42, "0.4 s"),
        (42.4, "42 s"),
        (61, "1 min 1 s"),
        (3600, "1 h 0 min"),
        (90 * 3600, "3 d 18 h"),
        (None, "-"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert view.duration(seconds) == said


def test_sizes_are_said_as_people_say_them():
    counts = (0, 1023, 1536, 5 * 2**40, None)
    assert list(map(view.size, counts)) == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 TiB",
        "-",
    ]


def test_it_imports_next_to_nothing():
    script = "import sys, miglet.ctl.__main__; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    imported = set(done.stdout.split())
    ours = {name for name in imported if name.startswith("miglet.")}
    assert ours == {
        f"miglet.ctl{name}" for name in ("", ".__main__", ".client", ".view")
    }
    heavy = {"logging", "asyncio", "subprocess", "dataclasses", "typing_extensions"}
    assert not imported & (
        heavy | {"requests", "yaml", "jsonschema", "psutil", "ctypes"}
    )


def test_it_answers_at_once(path, calls):
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ctl_at(path, "status").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # The benchmark holds it to 80 ms; here it must only not have become slow.
    assert min(seconds() for _ in range(5)) < 0.3
    assert eventually(lambda: calls.readline())
