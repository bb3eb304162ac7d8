"""The alarm that ends a call, and what it leaves behind: nothing."""

from __future__ import annotations

import gc
import select
import signal
import socket
import sys
import threading
import time
import weakref

import pytest

from miglet.http.transport import DeadlinePassed, within
from tests.support import Stopwatch, eventually

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def alarms_are_put_back():
    handler = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.setitimer(signal.ITIMER_REAL, 0) == (0.0, 0.0)


def wait(seconds):
    select.select([], [], [], seconds)


def test_a_call_in_time_gives_its_result():
    assert within(5, lambda: 7) == 7


def test_its_errors_are_its_own():
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)


@pytest.mark.parametrize("seconds", [0.1, 0.0, -3.0])
def test_a_call_that_takes_too_long_is_cut_short(seconds):
    watch = Stopwatch()
    with pytest.raises(DeadlinePassed) as caught:
        within(seconds, lambda: wait(5))
    assert watch.seconds() < 1
    assert caught.value.transient


def test_so_is_one_that_reads_from_a_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(DeadlinePassed):
        within(0.1, lambda: ours.recv(1))


def assert_closed_when_cut_short(ask):
    """Cut `ask(address)` short; what it has connected is closed before its error is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(DeadlinePassed) as caught:
            within(0.2, lambda: ask(listener.getsockname()))
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(5)
            assert peer.recv(1) == b""
    assert caught.value.transient


def test_what_it_had_opened_is_closed_while_its_error_is_still_held():
    def ask(address):
        connection = socket.create_connection(address)
        answer = connection.makefile("rb")
        connection.close()  # as http.client does: now the file alone keeps it open
        answer.read()

    assert_closed_when_cut_short(ask)


def test_so_is_what_a_failure_had_opened_that_was_being_handled():
    def ask(address):
        connection = socket.create_connection(address)
        answer = connection.makefile("rb")
        connection.close()
        raise OSError(f"{answer} had not come")

    def ask_and_handle(address):
        try:
            ask(address)
        except OSError:
            wait(5)

    assert_closed_when_cut_short(ask_and_handle)


def test_so_is_what_the_cause_of_such_a_failure_had_opened():
    def ask(address):
        connection = socket.create_connection(address)
        raise OSError(f"{connection.fileno()} is of no use")

    def ask_and_handle(address):
        cause = None
        try:
            ask(address)
        except OSError as error:
            cause = error
        try:
            raise ValueError from cause
        except ValueError:
            del cause
            wait(5)

    assert_closed_when_cut_short(ask_and_handle)


def test_so_is_one_that_computes():
    def spin():
        while True:
            pass

    with pytest.raises(DeadlinePassed):
        within(0.1, spin)


def test_a_library_that_swallows_every_exception_cannot_swallow_it():
    def stubborn():
        while True:
            try:
                wait(5)
            except Exception:  # noqa: BLE001, S112
                continue

    with pytest.raises(DeadlinePassed):
        within(0.1, stubborn)


def test_an_alarm_that_was_swallowed_rings_again():
    tries = []

    def swallows_the_first():
        try:
            wait(5)
        except BaseException:  # noqa: B036, BLE001
            tries.append(1)
        wait(5)

    watch = Stopwatch()
    with pytest.raises(DeadlinePassed):
        within(0.1, swallows_the_first)
    assert tries == [1]
    assert watch.seconds() < 1


def test_a_former_handler_and_timer_are_kept():
    rang = []
    former = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        within(5, lambda: wait(0.05))
        assert not rang
        assert 0.1 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.25
        eventually(lambda: rang, what="the former timer rings")
    finally:
        signal.signal(signal.SIGALRM, former)


def test_a_former_timer_that_came_due_meanwhile_rings_afterwards():
    rang = []
    former = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        within(5, lambda: wait(0.2))
        eventually(lambda: rang, what="the former timer rings")
    finally:
        signal.signal(signal.SIGALRM, former)


def test_limits_may_be_nested():
    def inner():
        with pytest.raises(DeadlinePassed):
            within(0.05, lambda: wait(5))
        wait(5)

    with pytest.raises(DeadlinePassed, match=r"0\.2 s"):
        within(0.2, inner)


def test_no_alarm_is_left_whenever_it_rings():
    """Calls that end at the very moment of their deadline: either result is right."""
    ended = {True: 0, False: 0}
    for step in range(300):
        stop = time.monotonic() + 0.0012 + (step % 30 - 15) * 1e-5

        def until(stop=stop):
            while time.monotonic() < stop:
                pass
            return True

        try:
            ended[within(0.0012, until)] += 1
        except DeadlinePassed:
            ended[False] += 1
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    wait(0.1)  # an alarm left over would end the test run
    assert min(ended.values()) > 0


def test_another_thread_learns_that_it_may_not():
    refusals = []

    def elsewhere():
        try:
            within(1, lambda: 7)
        except ValueError as error:
            refusals.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in refusals[0]


def pass_the_deadline() -> None:
    """Run Python's own instructions for several rings of the alarm."""
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass


class Finalized:
    """Takes its time when nobody needs it any more."""

    def __del__(self):
        pass_the_deadline()


def in_a_finalizer():
    Finalized()
    wait(20)


def in_a_finalizer_of_a_weak_reference():
    referent = type("Referent", (), {})()
    weakref.finalize(referent, pass_the_deadline)
    del referent
    wait(20)


def in_a_collection():
    gc.collect()
    wait(20)


@pytest.mark.parametrize(
    "call", [in_a_finalizer, in_a_finalizer_of_a_weak_reference, in_a_collection]
)
def test_no_ring_is_lost_in_what_the_interpreter_calls(call, monkeypatch):
    def slow_callback(phase, _info):
        if call is in_a_collection and phase == "stop":
            pass_the_deadline()

    # What other tests have left is no part of the collection.
    gc.collect()
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    gc.callbacks.append(slow_callback)
    try:
        with pytest.raises(DeadlinePassed):
            within(0.1, call)
    finally:
        gc.callbacks.remove(slow_callback)
    assert lost == []
