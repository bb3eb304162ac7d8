"""The crew: forks the workers, carries the mail, buries the dead, kills the silent.

Nobody else knows a worker's pid. A worker's death is answered at once the first times
and ever more slowly later, and never by giving up.
"""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from miglet.errors import BadMessage
from miglet.messages.codec import Fact, Message
from miglet.messages.facts import Pulse, WorkerLost, WorkerRecovered, WorkerStarted
from miglet.messages.orders import Stop
from miglet.supervisor.children import Child
from miglet.supervisor.queues import Queue

#: Seconds before the restart after the 1st, 2nd, … death in a row.
DELAYS = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """When a worker counts as silent, as lost, and as sound again."""

    #: Seconds that a worker may be silent unless it said otherwise.
    silence: float = 5.0
    #: Seconds between SIGABRT (a stack trace for us) and SIGKILL for a silent worker.
    abort: float = 2.0
    #: Seconds that a worker must live for its earlier deaths to be forgotten.
    stable: float = 10.0
    #: Deaths in a row after which a worker is reported as lost, and reported again.
    deaths: int = 5
    #: How late the parent's own loop may be before it forgives its workers' silence.
    late: float = 1.0


@dataclass
class Post:
    """One place in the crew, whoever fills it at the moment."""

    name: str
    main: Callable[[Queue], None]
    child: Child | None = None
    deaths: int = 0
    restarts: int = 0
    lost: bool = False
    released: bool = False
    born: float = 0.0
    #: When the next child is forked, while there is none.
    due: float = 0.0
    #: When silence becomes death, while there is one.
    patience: float = 0.0
    heard: float = 0.0
    aborted: bool = False

    def health(self, now: float) -> dict[str, Any]:
        """What ``status`` says of the worker."""
        return {
            "pid": self.child.pid if self.child else None,
            "healthy": bool(self.child) and not self.aborted and not self.lost,
            "restarts": self.restarts,
            "last_seen_seconds": round(now - self.heard, 3) if self.heard else None,
        }


class Supervisor:
    """Keeps the crew alive; the arbiter owns the selector and the inbox."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        inbox: deque[Fact],
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._limits = limits
        self._selector = selector
        self._inbox = inbox
        self._posts: dict[str, Post] = {}
        self._checked = time.monotonic()

    def hire(self, name: str, main: Callable[[Queue], None]) -> None:
        """Fill a new place in the crew, now and for as long as it is not released."""
        self._posts[name] = Post(name, main)
        self._fork(self._posts[name])

    def tell(self, name: str, order: Message) -> None:
        """Post an order; one to a worker that is just dead is given by `resume` later.

        A worker whose queue stays full hangs, and is killed.
        """
        post = self._posts.get(name)
        if post is None or post.child is None:
            return
        try:
            post.child.queue.post(order)
        except BadMessage as error:
            log.warning("%s does not take orders: %s", name, error)
            post.child.signal(signal.SIGKILL)

    def tell_all(self, order: Message) -> None:
        """Post an order that every worker knows."""
        for name in self._posts:
            self.tell(name, order)

    def release(self, names: Iterable[str]) -> None:
        """Let these workers go; they are not replaced."""
        for name in names:
            post = self._posts.get(name)
            if post is None or post.released:
                continue
            post.released = True
            self.tell(name, Stop())
            if post.child:
                post.child.signal(signal.SIGTERM)

    def stop(self, grace: float) -> None:
        """Let everybody go, wait once for all of them, then kill."""
        self.release(list(self._posts))
        deadline = time.monotonic() + grace
        while self._children() and time.monotonic() < deadline:
            for key, _ in self._selector.select(max(0.0, deadline - time.monotonic())):
                if isinstance(key.data, Ear):
                    key.data()
        for post in self._children():
            assert post.child
            post.child.signal(signal.SIGKILL)
            self._bury(post)

    def check(self, now: float) -> None:
        """Fork who is due, kill who is silent; call it at least once a second."""
        late = max(0.0, now - self._checked - self._limits.late)
        self._checked = now
        for post in list(self._posts.values()):
            if post.child is None:
                if not post.released and now >= post.due:
                    self._fork(post)
                continue
            post.patience += late
            self._judge(post, now)

    def next_due(self) -> float | None:
        """When `check` has something to fork; None if nobody is missing."""
        waiting = [
            post.due
            for post in self._posts.values()
            if post.child is None and not post.released
        ]
        return min(waiting, default=None)

    def health(self) -> dict[str, dict[str, Any]]:
        """What ``status`` says of each worker."""
        now = time.monotonic()
        return {name: post.health(now) for name, post in self._posts.items()}

    def lives(self, names: Iterable[str]) -> bool:
        """Whether none of these is lost: dead again and again, and still wanted."""
        posts = [self._posts[name] for name in names if name in self._posts]
        return not any(post.lost and not post.released for post in posts)

    def pid_of(self, name: str) -> int | None:
        """The pid of a worker; None while there is none."""
        post = self._posts.get(name)
        return post.child.pid if post and post.child else None

    def pids(self) -> set[int]:
        """The living workers' pids."""
        return {post.child.pid for post in self._children() if post.child}

    def _children(self) -> list[Post]:
        return [post for post in self._posts.values() if post.child]

    def _fork(self, post: Post) -> None:
        now = time.monotonic()
        try:
            post.child = Child(post.name, post.main)
        except OSError as error:
            post.deaths += 1
            self._defer(post, now, f"cannot fork: {error}")
            return
        post.born, post.heard = now, 0.0
        post.patience = now + self._limits.silence
        post.aborted = False
        hear, bury = Ear(self._hear, post), Ear(self._bury, post)
        self._selector.register(post.child.queue, selectors.EVENT_READ, hear)
        self._selector.register(post.child.sentinel, selectors.EVENT_READ, bury)
        self._inbox.append(WorkerStarted(post.name, post.child.pid, post.restarts))

    def _hear(self, post: Post) -> None:
        """Read what the worker says; nonsense is a reason to replace it."""
        if post.child is None:
            return
        try:
            messages = post.child.queue.drain()
            post.child.queue.flush()
        except BadMessage as error:
            log.debug("%s: %s", post.name, error)
            post.child.signal(signal.SIGKILL)
            self._deafen(post)
            return
        for message in messages:
            self._take(post, message)

    def _take(self, post: Post, message: Message) -> None:
        now = time.monotonic()
        post.heard = now
        if isinstance(message, Pulse):
            post.patience = now + max(self._limits.silence, message.patience)
            self._forgive(post, now)
        elif isinstance(message, Fact):
            self._inbox.append(message)

    def _forgive(self, post: Post, now: float) -> None:
        if not post.deaths or now - post.born < self._limits.stable:
            return
        post.deaths = 0
        if post.lost:
            post.lost = False
            self._inbox.append(WorkerRecovered(post.name))

    def _judge(self, post: Post, now: float) -> None:
        if now < post.patience or post.child is None:
            return
        number = signal.SIGKILL if post.aborted else signal.SIGABRT
        log.error("%s is silent for too long: %s", post.name, number.name)
        post.child.signal(number)
        post.aborted = True
        post.patience = now + self._limits.abort

    def _bury(self, post: Post) -> None:
        """Hear the last words, then close the grave and plan the successor."""
        if post.child is None:
            return
        self._hear_last_words(post)
        self._deafen(post)
        self._selector.unregister(post.child.sentinel)
        how = post.child.bury()
        post.child = None
        if post.released:
            return
        now = time.monotonic()
        if now - post.born >= self._limits.stable:
            post.deaths = 0
        post.deaths += 1
        self._defer(post, now, how)

    def _hear_last_words(self, post: Post) -> None:
        try:
            messages = post.child.queue.drain() if post.child else []
        except BadMessage:
            return
        for message in messages:
            self._take(post, message)

    def _deafen(self, post: Post) -> None:
        if post.child and post.child.queue in self._selector.get_map():
            self._selector.unregister(post.child.queue)

    def _defer(self, post: Post, now: float, how: str) -> None:
        post.restarts += 1
        delay = DELAYS[min(post.deaths, len(DELAYS)) - 1]
        post.due = now + delay
        log.warning("%s ended (%s); next one in %g s", post.name, how, delay)
        if post.deaths % self._limits.deaths == 0:
            post.lost = True
            self._inbox.append(WorkerLost(post.name, post.deaths, how))
        if not delay:
            self._fork(post)


class Ear:
    """What the selector calls for one of the supervisor's descriptors."""

    def __init__(self, hear: Callable[[Post], None], post: Post) -> None:
        self._hear = hear
        self._post = post

    def __call__(self) -> None:
        self._hear(self._post)
