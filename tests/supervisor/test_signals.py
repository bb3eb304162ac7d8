"""Signals behind a descriptor, and none of them during a fork."""

from __future__ import annotations

import os
import select
import signal

import pytest

from miglet.supervisor.signals import PARENT, SignalPipe, blocked, unblock
from tests.supervisor.forked import exit_status_of

pytestmark = pytest.mark.integration


def readable(pipe: SignalPipe, seconds: float) -> bool:
    return bool(select.select([pipe], [], [], seconds)[0])


def test_signals_are_read_in_the_order_in_which_they_came():
    def work() -> bool:
        pipe = SignalPipe(PARENT)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert readable(pipe, 10)
        names = ["SIGHUP", "SIGTERM", "SIGUSR1", "SIGTERM"]
        return pipe.drain() == names and pipe.drain() == []

    assert exit_status_of(work) == 0


def test_a_signal_that_was_not_asked_for_is_not_reported():
    def work() -> bool:
        pipe = SignalPipe([signal.SIGTERM])
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        os.kill(os.getpid(), signal.SIGALRM)
        os.kill(os.getpid(), signal.SIGTERM)
        return readable(pipe, 10) and pipe.drain() == ["SIGTERM"]

    assert exit_status_of(work) == 0


def test_a_blocked_signal_arrives_after_the_block():
    def work() -> bool:
        pipe = SignalPipe(PARENT)
        with blocked():
            os.kill(os.getpid(), signal.SIGTERM)
            early = readable(pipe, 0.05)
        return not early and readable(pipe, 10) and pipe.drain() == ["SIGTERM"]

    assert exit_status_of(work) == 0


def test_a_child_forked_in_a_block_receives_signals_once_it_unblocks_them():
    def child() -> bool:
        pipe = SignalPipe([signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
        early = readable(pipe, 0.05)
        unblock()
        return not early and readable(pipe, 10) and pipe.drain() == ["SIGTERM"]

    with blocked():
        status = exit_status_of(child)
    assert status == 0


def test_a_closed_pipe_leaves_no_wakeup_descriptor():
    def work() -> bool:
        SignalPipe([signal.SIGTERM]).close()
        os.kill(os.getpid(), signal.SIGTERM)
        return signal.set_wakeup_fd(-1) == -1

    assert exit_status_of(work) == 0
