"""The process connector: which exits it announces, and what a filter keeps from us."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from miglet.runner import connector
from miglet.runner.connector import ChildExits, exit_in

pytestmark = pytest.mark.integration


def message(
    what: int = 0x80000000,
    pid: int = 7,
    thread_group: int = 7,
    status: int = 102 << 8,
    parent: int = 3,
) -> bytes:
    """An event as the kernel sends it: 36 bytes of headers, 16 of an event's own."""
    event = (what, 0, 0, pid, thread_group, status, signal.SIGCHLD, parent, parent)
    return bytes(36) + struct.pack("=IIQIIIIII", *event)


def test_the_exit_of_a_child_tells_its_pid_and_status():
    assert exit_in(message(), parent=3) == (7, 102 << 8)


@pytest.mark.parametrize(
    "other",
    [
        message(what=0x1),
        message(parent=4),
        message(pid=8),
        message()[:75],
        b"",
    ],
    ids=["a fork", "another parent", "a thread", "cut short", "nothing"],
)
def test_anything_else_is_no_exit_of_a_child(other):
    assert exit_in(other, parent=3) is None


@contextmanager
def parent_of(family: Callable[[], None]) -> Iterator[tuple[ChildExits, int]]:
    """A process that runs `family` once we are listening; skips where we cannot."""
    waiting, go = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            os.read(waiting, 1)
            family()
        finally:
            os._exit(0)
    try:
        exits = ChildExits(parent)
    except OSError as error:
        pytest.skip(f"no process connector: {error}")
    else:
        # Also when the test skips itself.
        with closing(exits):
            os.write(go, b"g")
            yield exits, parent
    finally:
        for descriptor in (waiting, go):
            os.close(descriptor)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)


def child(end: Callable[[], None]) -> None:
    """Have a child that ends so, and collect it."""
    pid = os.fork()
    if pid == 0:
        end()
        os._exit(0)
    os.waitpid(pid, 0)


def needs_events() -> None:
    """Skip where this kernel, or this namespace, announces nothing."""
    with parent_of(lambda: child(lambda: None)) as (exits, parent):
        os.waitid(os.P_PID, parent, os.WEXITED | os.WNOWAIT)
        if not exits.read():
            pytest.skip("the process connector announces nothing here")


def test_children_are_announced_before_their_parent_can_collect_them():
    needs_events()

    def family() -> None:
        child(lambda: os._exit(102))
        child(lambda: os.kill(os.getpid(), signal.SIGKILL))

    with parent_of(family) as (exits, parent):
        os.waitid(os.P_PID, parent, os.WEXITED | os.WNOWAIT)
        assert [status for _, status in exits.read()] == [102 << 8, signal.SIGKILL]


def test_neither_grandchildren_nor_strangers_reach_the_socket(monkeypatch):
    needs_events()
    monkeypatch.setattr(connector, "exit_in", lambda message, parent: (0, len(message)))
    with parent_of(lambda: child(lambda: child(lambda: os._exit(5)))) as (
        exits,
        parent,
    ):
        child(lambda: os._exit(6))
        os.waitid(os.P_PID, parent, os.WEXITED | os.WNOWAIT)
        assert len(exits.read()) == 1


def test_where_no_netlink_socket_can_be_had_it_is_an_os_error(monkeypatch):
    monkeypatch.setattr(connector, "NETLINK_CONNECTOR", 255)
    with pytest.raises(OSError):
        ChildExits(1)
