"""What a worker has around it, for tests that run it without a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from miglet.messages.codec import Fact
from miglet.messages.events import Identity
from miglet.messages.facts import LivenessPing

IDENTITY = Identity("vm-1", "pool-1", "org-1", "0af7651916cd43dd8448eb211c80319c")

AnyFact = TypeVar("AnyFact", bound=Fact)


class FakeClock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeQueue:
    """The arbiter's end: keeps the facts, liveness pings aside."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def put(self, fact: Fact) -> None:
        """A worker reports."""
        if not isinstance(fact, LivenessPing):
            self.facts.append(fact)

    def take(self, *kinds: type[AnyFact]) -> list[AnyFact]:
        """The facts so far of these kinds (all, if none is given); they are gone."""
        taken, self.facts = self.facts, []
        wanted: Any = kinds or (Fact,)
        return [fact for fact in taken if isinstance(fact, wanted)]


class FakeClient:
    """The controller: answers each call with what `replies` says, and keeps the calls.

    A reply is a value, an error to raise, or a function of the call's arguments; the
    last one of a call repeats.
    """

    clock_offset_seconds: float | None = 0.25

    def __init__(self, **replies: Any) -> None:
        self.replies = {name: [*each] for name, each in replies.items()}
        self.calls: list[tuple[str, Any]] = []
        self.settings: list[Any] = []
        self.closed = 0

    def of(self, name: str) -> list[Any]:
        """The first arguments of each call of this name."""
        return [argument for call, argument in self.calls if call == name]

    def apply(self, settings: Any) -> None:
        """The settings changed."""
        self.settings.append(settings)

    def close(self) -> None:
        """The connection is let go."""
        self.closed += 1

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self.__dict__.get("replies", {}):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append((name, arguments[0] if arguments else None))
            replies = self.replies[name]
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
            if isinstance(reply, Exception):
                raise reply
            return reply(*arguments) if callable(reply) else reply

        return call


def start(worker: Any) -> FakeQueue:
    """Put the worker where it would be after its fork; the arbiter's end of it."""
    worker._queue = queue = FakeQueue()
    worker.open()
    return queue
