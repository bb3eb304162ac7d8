"""Child tasks: one result each, whatever the child does instead of giving it."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable

import pytest

from miglet.messages.codec import Fact
from miglet.messages.facts import (
    CommandValidated,
    EventDelivered,
    FaultNoted,
    RunnerRemoved,
    SettingsRefused,
)
from miglet.supervisor.children import Child, ChildTask, ChildTasks, RunningTask
from miglet.supervisor.queues import Queue
from tests.support import eventually

pytestmark = pytest.mark.integration

FALLBACK = CommandValidated("id-1", "Drain", {}, ["it failed"])
RESULT = CommandValidated("id-1", "Drain", {"reason": "r"})


def answering(queue: Queue) -> None:
    queue.put(FaultNoted("user", "code", "on the way", "task"))
    queue.put(RESULT)


def hanging(queue: Queue) -> None:
    signal.pause()


def dying(queue: Queue) -> None:
    os._exit(1)


def answering_twice(queue: Queue) -> None:
    queue.put(RESULT)
    queue.put(RESULT)
    signal.pause()


def answering_another_question(queue: Queue) -> None:
    queue.put(CommandValidated("id-2", "Drain", {}, requested_by="root"))
    signal.pause()


def forging(queue: Queue) -> None:
    queue.put(RunnerRemoved("not yours to say"))
    queue.put(RESULT)
    signal.pause()


def raving(queue: Queue) -> None:
    os.write(queue.fileno(), b'["CommandValidated",{}]')
    signal.pause()


def task(main: Callable[[Queue], None], seconds: float = 10.0) -> ChildTask:
    return ChildTask(
        "task",
        main,
        seconds,
        FALLBACK,
        facts=frozenset({FaultNoted}),
        fixed=("id", "type", "requested_by"),
    )


class Loop:
    """A selector, an inbox and the tasks, as the arbiter has them."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.inbox: deque[Fact] = deque()
        self.tasks = ChildTasks(self.selector, self.inbox)

    def until_done(self) -> list[Fact]:
        def turned() -> bool:
            for key, _ in self.selector.select(0.02):
                key.data()
            self.tasks.check(time.monotonic())
            return not self.tasks.under_way("task")

        eventually(turned, what="the end of the task")
        assert not self.selector.get_map()
        return list(self.inbox)


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.tasks.stop()
    loop.selector.close()


def test_what_a_task_reports_arrives_in_order(loop):
    loop.tasks.start(task(answering))
    assert loop.tasks.under_way("task")
    note, result = loop.until_done()
    assert isinstance(note, FaultNoted)
    assert result == RESULT


@pytest.mark.parametrize("main", [hanging, dying])
def test_a_task_without_a_result_has_its_fallback(loop, main):
    loop.tasks.start(task(main, seconds=0.5))
    assert loop.until_done() == [FALLBACK]


@pytest.mark.parametrize("main", [answering_another_question, forging, raving])
def test_a_task_that_sends_what_it_may_not_is_killed_and_not_believed(loop, main):
    loop.tasks.start(task(main))
    report, result = loop.until_done()
    assert isinstance(report, FaultNoted)
    assert (report.code, report.component) == ("protocol_violation", "task")
    assert result == FALLBACK


def test_a_second_result_is_refused(loop):
    loop.tasks.start(task(answering_twice))
    result, report = loop.until_done()
    assert (result, type(report)) == (RESULT, FaultNoted)


def test_a_task_that_cannot_be_forked_has_its_fallback(loop, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr("miglet.supervisor.children.Child", refuse)
    loop.tasks.start(task(answering))
    assert list(loop.inbox) == [FALLBACK]


def test_a_child_that_cannot_be_killed_holds_nobody_up(loop, monkeypatch):
    monkeypatch.setattr(Child, "signal", lambda self, number: None)
    loop.tasks.start(task(hanging, seconds=0.1))
    pid = loop.tasks._running[0].child.pid
    began = time.monotonic()
    assert loop.until_done() == [FALLBACK]
    assert time.monotonic() - began < 2.0
    os.kill(pid, signal.SIGKILL)


def test_the_end_of_the_program_leaves_no_task(loop):
    loop.tasks.start(task(hanging))
    pid = loop.tasks._running[0].child.pid
    loop.tasks.stop()
    assert not loop.inbox
    assert not os.path.exists(f"/proc/{pid}")


def test_a_task_can_be_waited_for():
    running = RunningTask(task(answering))
    facts: list[Fact] = []
    while not running.done:
        facts += running.wait()
    assert facts[1:] == [RESULT]
    assert running.wait() == []


def test_a_task_in_two_phases_has_a_fallback_for_each():
    first = SettingsRefused([], exit_status=1)
    kinds = frozenset({CommandValidated, FaultNoted, EventDelivered})
    running = RunningTask(ChildTask("task", answering, 10.0, first, facts=kinds))
    facts = running.wait()
    running.extend(10.0, FALLBACK)
    while not running.done:
        facts += running.wait()
    assert facts[1:] == [RESULT]


def test_a_task_that_ends_before_its_second_phase_begins_has_a_result(caplog):
    """As a bootstrap does that is done before its parent has imported everything."""
    first = SettingsRefused([], exit_status=1)
    kinds = frozenset({CommandValidated, FaultNoted, EventDelivered})
    last = frozenset({CommandValidated})
    running = RunningTask(
        ChildTask("task", answering, 10.0, first, facts=kinds, last_results=last)
    )
    assert running.child.exited(10.0)
    facts = running.wait()
    running.extend(10.0, FALLBACK)
    while not running.done:
        facts += running.wait()
    assert facts[1:] == [RESULT]
    assert "without a result" not in caplog.text


def test_a_wait_may_be_cut_short_and_gone_on_with():
    running = RunningTask(ChildTask("task", waiting, 10.0, FALLBACK))
    # Stopped, and not only about to be: it would not be woken by what came too early.
    stopped = os.waitid(os.P_PID, running.child.pid, os.WSTOPPED | os.WNOWAIT)
    assert stopped is not None and stopped.si_status == signal.SIGSTOP
    assert running.wait(0.05) == [] and not running.done
    running.child.signal(signal.SIGCONT)
    assert running.wait() == [RESULT]
    running.finish()


def waiting(queue: Queue) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    queue.put(RESULT)
