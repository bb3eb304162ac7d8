"""The supervisor: real forked workers that die, hang, talk nonsense and forge."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest

from miglet.messages.codec import Fact, Message
from miglet.messages.facts import (
    CommandValidated,
    EventDelivered,
    FaultNoted,
    LivenessPing,
    MachineSampled,
    WorkerLost,
    WorkerRecovered,
)
from miglet.messages.orders import SetLevel
from miglet.supervisor import queues
from miglet.supervisor.children import Child
from miglet.supervisor.queues import Queue, QueueClosed
from miglet.supervisor.supervisor import Limits, Supervisor
from tests.support import Stopwatch, eventually, open_files

pytestmark = pytest.mark.integration


class House:
    """A supervisor with a selector and an inbox, as the arbiter has them."""

    def __init__(self, **limits: float) -> None:
        self.selector = selectors.DefaultSelector()
        self.inbox: deque[Fact] = deque()
        self.supervisor = Supervisor(self.selector, self.inbox, Limits(**limits))

    def turn(self, seconds: float = 0.02) -> None:
        for key, _ in self.selector.select(seconds):
            key.data()
        self.supervisor.check(time.monotonic())

    def until(self, condition, seconds: float = 10.0, what: str = ""):
        def turned():
            self.turn()
            return condition()

        return eventually(turned, seconds, what)

    def pid(self, name: str = "worker") -> int | None:
        return self.supervisor.health()[name]["pid"]

    def heard(self, kind: type[Message]) -> list[Fact]:
        return [fact for fact in self.inbox if isinstance(fact, kind)]


@pytest.fixture
def limits() -> dict[str, float]:
    """The limits of the supervisor under test; a test may ask for others."""
    return {}


@pytest.fixture
def house(limits) -> Iterator[House]:
    house = House(**limits)
    yield house
    house.supervisor.stop(0.0)
    house.selector.close()


def pulsing(queue: Queue) -> None:
    """A worker that lives until its queue ends."""
    selector = selectors.DefaultSelector()
    selector.register(queue, selectors.EVENT_READ)
    while True:
        queue.put(LivenessPing(0.0))
        selector.select(0.1)
        try:
            list(queue.receive())
        except QueueClosed:
            return


def silent(queue: Queue) -> None:
    """A worker that says that it hangs soon, and does."""
    queue.put(LivenessPing(0.0))
    signal.pause()


def dying(queue: Queue) -> None:
    """A worker that is not fit for life."""
    os._exit(3)


def raving(queue: Queue) -> None:
    """A worker that writes what is no message."""
    os.write(queue.fileno(), b'["LivenessPing",{"timeout_seconds":"for ever"}]')
    signal.pause()


#: What turns an unprivileged worker into root, if the arbiter believes it.
FORGED = CommandValidated(
    id="",
    type="UpdateConfig",
    parameters={},
    settings={"runner": {"user": None, "directory": "/dev/shm/evil"}},
    requested_by="root",
)


def forging(queue: Queue) -> None:
    """A worker that says what it saw, then what only another process may say."""
    queue.put(EventDelivered(1, "Error"))
    queue.put(FORGED)
    queue.put(EventDelivered(2, "Error"))
    signal.pause()


def dying_forger(queue: Queue) -> None:
    """The same, dead before anybody reads it."""
    queue.put(FORGED)
    queue.put(EventDelivered(2, "Error"))
    os._exit(0)


def ordering(queue: Queue) -> None:
    """A worker that gives orders."""
    queue.put(SetLevel("debug"))
    signal.pause()


def flooding(fact: Fact, queue: Queue) -> None:
    """A worker that sends nothing but what it may, as fast as it can."""
    while True:
        queue.put(fact)


def ticking(queue: Queue) -> None:
    """A worker that reports something twenty times a second."""
    selector = selectors.DefaultSelector()
    selector.register(queue, selectors.EVENT_READ)
    sequence = 0
    while True:
        sequence += 1
        queue.put(LivenessPing(0.0))
        queue.put(EventDelivered(sequence, "Error"))
        if selector.select(0.05):
            return


def talking(queue: Queue) -> None:
    """A worker with last words."""
    for sequence in range(100):
        queue.put(EventDelivered(sequence, "Error"))
    os._exit(0)


def test_a_killed_worker_is_replaced_at_once(house):
    house.supervisor.start("worker", pulsing, {EventDelivered})
    first = house.until(house.pid)
    watch = Stopwatch()
    os.kill(first, signal.SIGKILL)
    house.until(lambda: house.pid() not in (first, None))
    assert watch.seconds() < 1.0
    assert house.supervisor.health()["worker"]["restarts"] == 1


def test_last_words_are_heard(house):
    house.supervisor.start("worker", talking, {EventDelivered})
    house.until(lambda: len(house.heard(EventDelivered)) >= 100)
    assert [each.sequence for each in house.heard(EventDelivered)[:100]] == list(
        range(100)
    )


def test_a_worker_that_keeps_dying_is_reported_and_tried_on(house):
    house.supervisor.start("worker", dying, {EventDelivered})
    house.until(lambda: house.heard(WorkerLost), 15, "the worker to be reported")
    (lost,) = house.heard(WorkerLost)
    assert (lost.worker, lost.deaths, lost.reason) == ("worker", 5, "exit status 3")
    assert not house.supervisor.health()["worker"]["healthy"]
    assert house.supervisor.next_due() is not None


def test_the_pause_between_restarts_grows(house):
    house.supervisor.start("worker", dying, {EventDelivered})
    house.until(lambda: house.supervisor.health()["worker"]["restarts"] >= 4)
    pause = house.supervisor.next_due() - time.monotonic()
    assert 0.5 < pause <= 1.0


@pytest.mark.parametrize("limits", [{"liveness_timeout": 0.3, "abort": 0.2}])
def test_a_silent_worker_is_aborted_and_replaced(house):
    house.supervisor.start("worker", silent, {EventDelivered})
    first = house.until(house.pid)
    house.until(lambda: house.pid() not in (first, None), what="a successor")


@pytest.mark.parametrize("limits", [{"liveness_timeout": 0.3, "abort": 0.2}])
def test_a_stopped_worker_is_killed(house):
    house.supervisor.start("worker", pulsing, {EventDelivered})
    first = house.until(house.pid)
    os.kill(first, signal.SIGSTOP)
    house.until(lambda: house.pid() not in (first, None), what="a successor")


@pytest.mark.parametrize("limits", [{"liveness_timeout": 1.5}])
def test_a_parent_that_was_asleep_blames_nobody_for_silence(house):
    house.supervisor.start("worker", pulsing, {EventDelivered})
    first = house.until(house.pid)
    house.turn()
    os.kill(first, signal.SIGSTOP)
    wake = time.monotonic() + 2.5
    while time.monotonic() < wake:
        selectors.DefaultSelector().select(0.1)
    os.kill(first, signal.SIGCONT)
    house.supervisor.check(time.monotonic())
    for _ in range(20):
        house.turn()
    assert house.pid() == first


def test_nonsense_costs_a_worker_its_life_and_nobody_else(house):
    house.supervisor.start("other", pulsing, {EventDelivered})
    house.supervisor.start("worker", raving, {EventDelivered})
    other = house.until(lambda: house.pid("other"))
    house.until(lambda: house.supervisor.health()["worker"]["restarts"] >= 1)
    assert house.pid("other") == other


@pytest.mark.parametrize("main", [forging, dying_forger, ordering])
def test_a_worker_that_sends_what_it_may_not_is_killed_and_not_believed(house, main):
    house.supervisor.start("worker", main, {EventDelivered})
    house.until(lambda: house.heard(FaultNoted), what="the report")
    house.until(lambda: house.supervisor.health()["worker"]["restarts"] >= 1)
    (report, *_) = house.heard(FaultNoted)
    assert (report.code, report.component) == ("protocol_violation", "worker")
    assert "may not send" in report.message
    assert not house.heard(CommandValidated)
    assert {each.sequence for each in house.heard(EventDelivered)} <= {1}


def small_budget(monkeypatch: pytest.MonkeyPatch, at_once: float) -> None:
    """A busy machine may be too slow to spend the real one."""
    monkeypatch.setattr(queues, "BUDGET_AT_ONCE", at_once)
    monkeypatch.setattr(queues, "BUDGET_PER_SECOND", at_once)


FLOODS = [
    LivenessPing(0.0),
    MachineSampled({"cpu_percent": 1.0}),
    FaultNoted("user", "noise", "x", "worker"),
]


@pytest.mark.parametrize("fact", FLOODS, ids=lambda fact: type(fact).__name__)
def test_a_worker_that_floods_is_killed_restarted_ever_later_and_reported(
    house, monkeypatch, fact
):
    small_budget(monkeypatch, 10.0 * fact.cost)
    house.supervisor.start(
        "worker", partial(flooding, fact), {MachineSampled, FaultNoted}
    )
    house.until(lambda: house.supervisor.health()["worker"]["restarts"] >= 4)
    reports = [each for each in house.heard(FaultNoted) if each.component == "worker"]
    violations = [each for each in reports if each.code == "protocol_violation"]
    assert len(violations) == 4
    assert "facts come faster than they may" in violations[0].message
    assert house.supervisor.next_due() - time.monotonic() > 0.5
    let_in = [each for each in house.inbox if each == fact]
    assert len(let_in) < 4 * 3 * 10


@pytest.mark.parametrize("fact", FLOODS, ids=lambda fact: type(fact).__name__)
def test_a_worker_that_floods_delays_nobody_elses_facts(house, monkeypatch, fact):
    # More than the other worker spends, which reports twenty times a second.
    small_budget(monkeypatch, 100.0 * fact.cost)
    house.supervisor.start("other", ticking, {EventDelivered})
    house.until(lambda: house.heard(EventDelivered))
    other = house.pid("other")
    house.supervisor.start(
        "worker", partial(flooding, fact), {MachineSampled, FaultNoted}
    )
    arrivals, heard = [time.monotonic()], len(house.heard(EventDelivered))
    while house.supervisor.health()["worker"]["restarts"] < 4:
        house.turn()
        if len(house.heard(EventDelivered)) > heard:
            heard = len(house.heard(EventDelivered))
            arrivals.append(time.monotonic())
    gaps = [after - before for before, after in pairwise(arrivals)]
    assert len(gaps) >= 5 and max(gaps) < 1.0
    assert house.pid("other") == other


def test_a_worker_that_sends_nonsense_is_reported(house):
    house.supervisor.start("worker", raving, {EventDelivered})
    house.until(lambda: house.heard(FaultNoted), what="the report")


def unkillable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal has an effect, as in uninterruptible sleep on a dying disk."""
    monkeypatch.setattr(Child, "signal", lambda self, number: None)


@pytest.mark.parametrize(
    "limits", [{"liveness_timeout": 0.1, "abort": 0.1, "kill": 0.1}]
)
def test_a_worker_that_cannot_be_killed_is_replaced_and_reaped_later(
    house, monkeypatch
):
    unkillable(monkeypatch)
    house.supervisor.start("worker", silent, {EventDelivered})
    first = house.until(house.pid)
    house.until(lambda: house.pid() not in (first, None), what="a successor")
    monkeypatch.undo()
    os.kill(first, signal.SIGKILL)
    house.until(lambda: not os.path.exists(f"/proc/{first}"), what="the reaping")


def test_a_worker_that_cannot_be_killed_does_not_hold_up_the_end(house, monkeypatch):
    unkillable(monkeypatch)
    house.supervisor.start("worker", silent, {EventDelivered})
    pid = house.until(house.pid)
    began = time.monotonic()
    house.supervisor.stop(0.1)
    assert time.monotonic() - began < 2.0
    os.kill(pid, signal.SIGKILL)
    house.until(lambda: not os.path.exists(f"/proc/{pid}"), what="the reaping")


def test_the_end_waits_for_nothing_but_the_workers(house):
    reader, writer = os.pipe()
    house.selector.register(reader, selectors.EVENT_READ, lambda: None)
    os.write(writer, b"readable all the time")
    house.supervisor.start("worker", pulsing, {EventDelivered})
    house.until(house.pid)
    used = time.process_time()
    house.supervisor.stop(0.5)
    assert time.process_time() - used < 0.25
    os.close(writer)
    os.close(reader)


def test_a_worker_that_does_not_read_its_orders_is_replaced(house):
    house.supervisor.start("worker", silent, {EventDelivered})
    first = house.until(house.pid)
    for _ in range(20_000):
        house.supervisor.send("worker", SetLevel("x" * 500))
        if house.pid() != first:
            break
    house.until(lambda: house.pid() not in (first, None))


def test_nothing_leaks_into_a_worker_but_its_queue(house):
    spare = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(spare, True)
    house.supervisor.start("one", pulsing, {EventDelivered})
    house.supervisor.start("two", pulsing, {EventDelivered})
    house.until(lambda: house.supervisor.health()["two"]["last_seen_seconds"])
    house.until(lambda: sockets(house.pid("one")) == 1, what="one queue end only")
    house.until(lambda: sockets(house.pid("two")) == 1, what="one queue end only")
    os.close(spare)


def sockets(pid: int) -> int:
    """How many descriptors a process has that are neither stdio nor its selector."""
    return len([each for each in open_files(pid)[3:] if "eventpoll" not in each])


def test_a_stopped_crew_leaves_no_zombie(house):
    house.supervisor.start("worker", pulsing, {EventDelivered})
    pid = house.until(house.pid)
    house.supervisor.stop(2.0)
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("limits", [{"stable": 2.0, "deaths": 2}])
def test_a_worker_that_has_settled_is_trusted_again(house):
    house.supervisor.start("worker", pulsing, {EventDelivered})
    for _ in range(2):
        pid = house.until(house.pid)
        os.kill(pid, signal.SIGKILL)
        house.until(lambda dead=pid: house.pid() not in (dead, None))
    assert house.heard(WorkerLost)
    house.until(lambda: house.heard(WorkerRecovered), what="trust")
    assert house.supervisor.health()["worker"]["healthy"]
