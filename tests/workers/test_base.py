"""The workers' common life: liveness pings, orders, signals, the parent's death."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from miglet.config.settings import Settings
from miglet.messages.codec import Message
from miglet.messages.events import Identity
from miglet.messages.facts import EventsFlushed, FaultNoted, LivenessPing
from miglet.messages.orders import ApplySettings, SetLevel, Stop
from miglet.supervisor import queues
from miglet.supervisor.children import Child
from miglet.supervisor.queues import QueueClosed
from miglet.supervisor.supervisor import Limits
from miglet.workers import base
from miglet.workers.base import Worker
from tests.sample_settings import sample_settings
from tests.support import Stopwatch

pytestmark = pytest.mark.integration

SETTINGS = sample_settings({"pool_id": "hello"})
POLLY = SETTINGS.replaced({"pool_id": "polly"})
IDENTITY = Identity("vm-1", "pool-1", "org-1", "0" * 32)


class Parrot(Worker):
    """Says what it does."""

    name = "parrot"
    user = ""
    facts = frozenset({FaultNoted})

    def __init__(self) -> None:
        super().__init__(SETTINGS, IDENTITY)
        self.period = 3600.0

    def say(self, text: str) -> None:
        self.report(FaultNoted("user", "said", text, "parrot"))

    def open(self) -> None:
        self.say("open")

    def work(self) -> None:
        self.say(f"work {self.settings.pool_id}")

    def changed(self, before: Settings) -> None:
        self.say(f"changed from {before.pool_id}")

    def close(self) -> None:
        self.say("goodbye")

    def repeat(self, order: SetLevel) -> None:
        self.say(order.level)


class Talker(Parrot):
    """Dies of what it meets."""

    def work(self) -> None:
        raise RuntimeError("the secret is ghp_0123456789012345678901234567890123ab")


class Heard:
    """A real worker, and what it has said so far."""

    def __init__(self, worker: Worker) -> None:
        self.child = Child(worker.name, worker)
        self._backlog: list[Message] = []

    def next(self, seconds: float = 5.0) -> str:
        """The next thing that the worker says besides its liveness pings."""
        deadline = time.monotonic() + seconds
        while not self._backlog:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.child.queue], [], [], left)[0], "silence"
            try:
                for message in self.child.queue.receive():
                    if isinstance(message, FaultNoted):
                        self._backlog.append(message)
            except QueueClosed:
                assert self._backlog, "the worker has ended"
        return self._backlog.pop(0).message


@contextmanager
def forked(worker: Worker) -> Iterator[Heard]:
    """A real worker; killed in any case."""
    heard = Heard(worker)
    try:
        yield heard
    finally:
        heard.child.signal(signal.SIGKILL)
        heard.child.reap(5.0)


def test_a_worker_works_obeys_and_says_goodbye():
    with forked(Parrot()) as worker:
        assert worker.next() == "open"
        assert worker.next() == "work hello"
        worker.child.queue.post(ApplySettings(POLLY.as_dict()))
        assert worker.next() == "changed from hello"
        assert worker.next() == "work polly"
        worker.child.queue.post(Stop())
        assert worker.next() == "goodbye"


def test_sigterm_is_a_goodbye_too():
    with forked(Parrot()) as worker:
        assert worker.next() == "open"
        worker.child.signal(signal.SIGTERM)
        assert worker.next().startswith("work")
        assert worker.next() == "goodbye"


def test_sigint_is_the_arbiters_business():
    with forked(Parrot()) as worker:
        assert worker.next() == "open"
        assert worker.next().startswith("work")
        worker.child.signal(signal.SIGINT)
        worker.child.queue.post(Stop())
        assert worker.next() == "goodbye"


def test_a_worker_that_lives_pings_twice_before_it_would_count_as_hung():
    assert Limits().liveness_timeout > 2 * base.PING_SECONDS


def test_a_liveness_ping_comes_at_once_and_then_periodically(monkeypatch):
    monkeypatch.setattr(base, "LATEST_PING_SECONDS", 0.2)
    monkeypatch.setattr(base, "PING_SECONDS", 0.1)
    with forked(Parrot()) as worker:
        began, pings = time.monotonic(), 0
        watch = Stopwatch()
        while pings < 3:
            assert select.select([worker.child.queue], [], [], 3.0)[0]
            heard = list(worker.child.queue.receive())
            pings += sum(isinstance(each, LivenessPing) for each in heard)
        assert time.monotonic() - began > 0.3
        assert watch.seconds() < 2.0


class Patient(Parrot):
    """Asks for a longer timeout, and then is not busy for long."""

    def work(self) -> None:
        self.ping(60.0)


def test_a_longer_timeout_ends_with_what_it_was_asked_for():
    heard: list[float] = []
    with forked(Patient()) as worker:
        while 60.0 not in heard[:-1]:
            assert select.select([worker.child.queue], [], [], 0.9)[0], heard
            pings = list(worker.child.queue.receive())
            heard += [
                each.timeout_seconds for each in pings if isinstance(each, LivenessPing)
            ]
    assert heard[heard.index(60.0) + 1] == 0.0


class LongPoller(Parrot):
    """Makes one slow call after the other, and counts when memory could be released."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.chances = 0
        self._memory_timer = self

    def take_over_signals(self) -> None:
        """They are the test's."""

    def release_if_due(self, now: float) -> None:
        self.chances += 1

    def work(self) -> None:
        self.ping(5.0)
        self.calls += 1
        self._stop_requested = self.calls == 3
        self.work_soon()


def test_memory_is_released_between_two_slow_calls():
    ours, theirs = queues.pair()
    poller = LongPoller()
    poller(theirs)
    ours.close()
    theirs.close()
    assert poller.chances >= poller.calls == 3


def test_a_worker_whose_queue_ends_leaves_within_a_second():
    worker = Parrot()
    ours, theirs = queues.pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        worker(theirs)
        os._exit(0)
    theirs.close()
    ours.close()
    deadline = time.monotonic() + 5
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)


def test_a_worker_does_not_report_what_it_does_not_declare():
    with pytest.raises(AssertionError, match="parrot does not declare EventsFlushed"):
        Parrot().report(EventsFlushed())


def test_what_a_worker_dies_of_is_logged_without_secrets(capfd):
    with forked(Talker()) as worker:
        assert worker.next() == "open"
        assert select.select([worker.child.sentinel], [], [], 5.0)[0]
    shown = "".join(capfd.readouterr())
    assert "ghp_" not in shown


def test_a_child_does_not_outlive_its_parent():
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = Child("parrot", Parrot())
        os.write(writer, str(child.pid).encode())
        signal.pause()
    pid = int(os.read(reader, 32))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 3
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)
    os.close(reader)
    os.close(writer)
