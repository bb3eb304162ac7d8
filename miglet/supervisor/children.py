"""Forking: how a child of MIGlet begins, and how the parent knows that it ended.

A child starts with nothing of its parent's but stdio and its own end of a new queue:
no other worker's queue, no control socket, no journal.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import importlib
import logging
import math
import os
import select
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import multiprocess

from miglet import logger
from miglet.errors import BadMessage
from miglet.messages.codec import Fact, Value, frozen_value
from miglet.messages.facts import FaultNoted
from miglet.supervisor import privileges, queues, signals
from miglet.supervisor.queues import RECEIVE_LIMIT, Budget, Queue, QueueClosed

#: Seconds that a child gets to die of SIGKILL; it takes milliseconds, if it can.
KILL_SECONDS = 0.2

#: The only start method that Debian 12's package supports, and the one we want.
FORK = multiprocess.get_context("fork")

#: No descriptor has a higher number: the limit was not changed since the start.
MOST_DESCRIPTORS = os.sysconf("SC_OPEN_MAX")

log = logging.getLogger(__name__)


#: Children that the kernel did not let die in time; see `Child.reap`.
_ABANDONED: list[Child] = []


class Child:
    """A forked process: the parent's end of its queue, and its pidfd."""

    def __init__(
        self,
        name: str,
        main: Callable[[Queue], None],
        facts: Collection[type[Fact]] = (),
    ) -> None:
        self.name = name
        #: The types of the facts that it may send.
        self.facts = frozenset(facts)
        self._budget = Budget()
        self.queue, theirs = queues.pair()
        parent = os.getpid()
        self._process = FORK.Process(
            target=_begin, args=(name, main, theirs, parent), name=name, daemon=True
        )
        try:
            with signals.blocked():
                self._process.start()
        except OSError:
            self.queue.close()
            raise
        finally:
            theirs.close()
        self.pid: int = self._process.pid
        #: Readable as soon as the child is dead, whatever other processes inherited.
        self.sentinel = os.pidfd_open(self.pid)

    def receive(self, limit: int = RECEIVE_LIMIT) -> Iterator[Fact]:
        """Yield the facts that have arrived, at most `limit`.

        Raises what `Queue.receive` raises, and BadMessage for a message that this
        child may not send, or not so soon. After that nothing that it sends is to be
        believed.
        """
        for message in self.queue.receive(limit):
            if not isinstance(message, Fact) or type(message) not in self.facts:
                raise BadMessage(f"it may not send {type(message).__name__}")
            self._budget.spend(message.cost)
            yield message

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if the child is dead."""
        try:
            signal.pidfd_send_signal(self.sentinel, number)
        except ProcessLookupError:
            log.debug("%s is already gone", self.name)

    def exited(self, within_seconds: float = 0.0) -> bool:
        """Whether the child is dead, or dies within so many seconds."""
        poll = select.poll()
        poll.register(self.sentinel, select.POLLIN)
        return bool(poll.poll(within_seconds * 1000))

    def reap(self, within_seconds: float = 0.0) -> str:
        """Reap the dead child and close what belonged to it; returns how it ended.

        A child that is not dead in time was killed and is in uninterruptible sleep, on
        a failing disk for example. Nobody waits for it: it is reaped once it exits.
        """
        self.queue.close()
        if self.exited(within_seconds):
            return self._reap()
        # Otherwise multiprocess would wait for it at the end of this process.
        multiprocess.process._children.discard(self._process)
        _ABANDONED.append(self)
        return "cannot be killed"

    def kill(self) -> str:
        """Kill the child and reap it; returns how it ended."""
        self.signal(signal.SIGKILL)
        return self.reap(KILL_SECONDS)

    def _reap(self) -> str:
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        os.close(self.sentinel)
        return f"signal {-code}" if code < 0 else f"exit status {code}"


def reap_abandoned() -> None:
    """Reap the children that could not be killed and have died since."""
    for child in [each for each in _ABANDONED if each.exited()]:
        _ABANDONED.remove(child)
        child._reap()


@frozen_value
class ChildTask(Value):
    """Work for a short-lived child, which reports facts and ends.

    The result is the fact of the same type as `fallback`, which stands in for it when
    the child dies, hangs or sends anything that it may not send.
    """

    name: str
    main: Callable[[Queue], None]
    timeout_seconds: float
    fallback: Fact
    #: The types of the facts that it may send besides the result.
    facts: frozenset[type[Fact]] = frozenset()
    #: Those of them that are the last result of a task in two phases: a child that
    #: has sent one may have ended before the second phase begins here (`extend`).
    last_results: frozenset[type[Fact]] = frozenset()
    #: Fields in which the result must equal the fallback: what the task was about.
    fixed: tuple[str, ...] = ()


class RunningTask:
    """A child at work on a ChildTask; raises OSError when it cannot be forked."""

    def __init__(self, task: ChildTask) -> None:
        self.task = task
        self.deadline = time.monotonic() + task.timeout_seconds
        result = type(task.fallback)
        self.child = Child(task.name, task.main, {result, *task.facts})
        #: The types of the facts that it has sent.
        self._sent: set[type[Fact]] = set()
        self.done = False

    def fileno(self) -> int:
        """Readable when there are facts, or the child is dead: its queue has ended."""
        return self.child.queue.fileno()

    def receive(self) -> list[Fact]:
        """The facts that have arrived; the last one comes with the end of the task.

        Call it when the descriptor is readable, and at the deadline.
        """
        facts: list[Fact] = []
        if self.done:
            return facts
        try:
            for fact in self.child.receive():
                self._check(fact)
                facts.append(fact)
        except QueueClosed:
            return [*facts, *self.finish()]
        except BadMessage as error:
            log.error("%s was killed for what it sent: %s", self.task.name, error)
            violation = FaultNoted(
                category="infrastructure",
                code="protocol_violation",
                message=f"{self.task.name} was killed for what it sent: {error}",
                component=self.task.name,
                hint="a defect, or an attack on this process: see MIGlet's log",
            )
            return [*facts, violation, *self.finish()]
        if time.monotonic() >= self.deadline:
            log.error("%s did not finish in time", self.task.name)
            return [*facts, *self.finish()]
        return facts

    def wait(self, most_seconds: float = math.inf) -> list[Fact]:
        """Wait for the next facts; empty when the task is done, or the time is over."""
        facts: list[Fact] = []
        until = time.monotonic() + most_seconds
        while not facts and not self.done:
            now = time.monotonic()
            if now >= until:
                break
            left = max(0.0, min(self.deadline, until) - now)
            poll = select.poll()
            poll.register(self, select.POLLIN)
            poll.poll(left * 1000)
            facts = self.receive()
        return facts

    def finish(self) -> list[Fact]:
        """End the child, whatever it is doing; the fallback, if it has no result."""
        if self.done:
            return []
        self.done = True
        ended = self.child.kill()
        if self._sent & {type(self.task.fallback), *self.task.last_results}:
            return []
        log.error("%s ended without a result (%s)", self.task.name, ended)
        return [self.task.fallback]

    def extend(self, timeout_seconds: float, fallback: Fact) -> None:
        """Wait for another result, from now on for so many seconds."""
        self.task = replace(
            self.task, timeout_seconds=timeout_seconds, fallback=fallback
        )
        self.deadline = time.monotonic() + timeout_seconds

    def _check(self, fact: Fact) -> None:
        kind, fallback = type(fact), self.task.fallback
        if kind is type(fallback):
            for name in self.task.fixed:
                if getattr(fact, name) != getattr(fallback, name):
                    raise BadMessage(f"a {kind.__name__} with another {name}")
            if kind in self._sent:
                raise BadMessage(f"a second {kind.__name__}")
        self._sent.add(kind)


class ChildTasks:
    """The tasks under way; the arbiter owns the selector and the inbox."""

    def __init__(self, selector: selectors.BaseSelector, inbox: deque[Fact]) -> None:
        self._selector = selector
        self._inbox = inbox
        self._running: list[RunningTask] = []

    def start(self, task: ChildTask) -> None:
        """Fork a child for `task`; its facts go into the inbox."""
        try:
            running = RunningTask(task)
        except OSError as error:
            log.error("cannot fork %s: %s", task.name, error)
            self._inbox.append(task.fallback)
            return
        self.follow(running)

    def follow(self, running: RunningTask) -> None:
        """Follow a task that was started before."""
        if running.done:
            return
        self._running.append(running)
        receive = functools.partial(self._receive, running)
        self._selector.register(running, selectors.EVENT_READ, receive)

    def under_way(self, name: str) -> bool:
        """Whether such a task is not done yet."""
        return any(running.task.name == name for running in self._running)

    def check(self, now: float) -> None:
        """End the tasks whose time is over."""
        for running in list(self._running):
            if now >= running.deadline:
                self._receive(running)

    def stop(self) -> None:
        """End all tasks; what they would have reported is of no use any more."""
        for running in self._running:
            self._selector.unregister(running)
            running.finish()
        self._running.clear()

    def _receive(self, running: RunningTask) -> None:
        # The descriptor is closed with the task.
        key = self._selector.get_key(running)
        self._inbox.extend(running.receive())
        if running.done:
            self._selector.unregister(key.fd)
            self._running.remove(running)


def by_name(
    module: str, function: str, *arguments: Any, user: str = ""
) -> Callable[[Queue], None]:
    """A child's main that is imported only there: what it needs ends with it.

    With `user` the child becomes that user as soon as the module is imported.
    """
    return functools.partial(_run_by_name, module, function, arguments, user)


def _run_by_name(
    module: str, function: str, arguments: tuple[Any, ...], user: str, queue: Queue
) -> None:
    main = getattr(importlib.import_module(module), function)
    if user:
        privileges.become(user)
    main(queue, *arguments)


def _begin(name: str, main: Callable[[Queue], None], queue: Queue, parent: int) -> None:
    """The first steps in the child; see platform notes in docs/architecture.rst."""
    gc.set_threshold(5000, 50, 1000)
    gc.enable()
    os.closerange(3, queue.fileno())
    os.closerange(queue.fileno() + 1, MOST_DESCRIPTORS)
    signal.set_wakeup_fd(-1)
    for number in signals.PARENT:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(file=2)
    logger.set_component(name)
    privileges.name_process(name)
    privileges.die_with_parent(parent)
    # So that a worker may have children; it reaps them, or they die with it.
    multiprocess.current_process().daemon = False
    signals.unblock()
    with logger.last_words():
        main(queue)
