"""The control socket as miglet-ctl uses it: whatever answers, or does not."""

from __future__ import annotations

import os
import socket
import time

import pytest

from miglet.control import rpc
from miglet.ctl import __main__ as ctl
from miglet.ctl import client
from tests.ctl.agent import ctl_at, forked

pytestmark = pytest.mark.integration


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
    printed = capfd.readouterr().err
    assert "no access" in printed and "sudo" in printed and "group miglet" in printed


def say_and_close(listener: socket.socket, answer: bytes) -> None:
    """Answer whoever calls with `answer`, whatever they ask."""
    while True:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(answer)
        connection.close()


@pytest.mark.parametrize(
    "answer, expected",
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
def test_a_strange_answer_is_unknown(path, answer, expected):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with forked(say_and_close, listener, answer):
            done = ctl_at(path, "status")
    assert done.returncode == 4
    assert expected in done.stderr and done.stderr.count("\n") == 1


def test_what_was_said_before_the_door_closed_is_heard(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with client.Connection(str(path)) as connection:
            answering, _ = listener.accept()
            answering.sendall(rpc.failure(None, rpc.RpcError(rpc.BUSY, "try again")))
            answering.close()
            with pytest.raises(client.Failed, match="try again"):
                connection.call("status")


@pytest.mark.slow
def test_an_agent_that_does_not_answer_is_unknown_after_five_seconds(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        began = time.monotonic()
        done = ctl_at(path, "status")
    assert done.returncode == 4 and "within 5 s" in done.stderr
    assert 5 <= time.monotonic() - began < 8
