"""Forking: how a child of MIGlet begins, and how the parent knows that it ended.

A child starts with nothing of its parent's but stdio and its own end of a new queue:
no sibling's queue, no control socket, no journal.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import importlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import multiprocess

from miglet import logger
from miglet.supervisor import confinement, queues, signals
from miglet.supervisor.queues import Queue

#: The only start method that Debian 12's package supports, and the one we want.
FORK = multiprocess.get_context("fork")

#: No descriptor has a higher number: the limit was not changed since the start.
MOST_DESCRIPTORS = os.sysconf("SC_OPEN_MAX")

log = logging.getLogger(__name__)


class Child:
    """A forked process, the parent's end of its queue, and its pidfd."""

    def __init__(self, name: str, main: Callable[[Queue], None]) -> None:
        self.name = name
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
        #: Readable as soon as the child is dead, whoever inherited what.
        self.sentinel = os.pidfd_open(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if the child is dead."""
        try:
            signal.pidfd_send_signal(self.sentinel, number)
        except ProcessLookupError:
            log.debug("%s is already gone", self.name)

    def bury(self) -> str:
        """Reap the dead child and close what belonged to it; says how it died."""
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        os.close(self.sentinel)
        self.queue.close()
        return f"signal {-code}" if code < 0 else f"exit status {code}"


def by_name(module: str, function: str, *arguments: Any) -> Callable[[Queue], None]:
    """A child's main that is imported only there: what it needs ends with it."""
    return functools.partial(_run_by_name, module, function, arguments)


def _run_by_name(
    module: str, function: str, arguments: tuple[Any, ...], queue: Queue
) -> None:
    getattr(importlib.import_module(module), function)(queue, *arguments)


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
    confinement.name_process(name)
    confinement.die_with_parent(parent)
    # So that a worker may have children; it buries them, or they die with it.
    multiprocess.current_process().daemon = False
    signals.unblock()
    with logger.last_words():
        main(queue)
