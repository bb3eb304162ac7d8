"""Every order that the arbiter gives, and the worker that obeys it.

An order can be given again after a worker has died: to obey it twice does no harm.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from miglet.messages.codec import Order, frozen_value


@frozen_value
class Stop(Order):
    """Finish what is in hand and leave."""


@frozen_value
class ApplySettings(Order):
    """Go on with these settings; they have been validated."""

    settings: dict[str, Any] = field(repr=False)


@frozen_value
class SetLevel(Order):
    """Log from this level on."""

    level: str


@frozen_value
class FollowJob(Order):
    """Name this job in every log line; nulls when there is none."""

    job_id: str | None = None
    run_id: str | None = None
    trace_id: str | None = None


# The heartbeat-sender: the one uplink.


@frozen_value
class DeliverEvent(Order):
    """Deliver this event; report it delivered, refused or set aside."""

    to = "heartbeat-sender"
    event: dict[str, Any] = field(repr=False)
    #: Whether it is set aside at its first failure: the last try before the end.
    once: bool = False


@frozen_value
class UpdateHeartbeat(Order):
    """What the heartbeats say from now on; `at_once` when the state changed."""

    to = "heartbeat-sender"
    content: dict[str, Any] = field(repr=False)
    #: The envelope of a JobHeartbeat while a job runs, else null.
    job: dict[str, Any] | None = field(default=None, repr=False)
    at_once: bool = False

    @property
    def is_replaceable(self) -> bool:
        """Whether only the latest content counts: a change of state has to be sent."""
        return not self.at_once


@frozen_value
class RenewCredentials(Order):
    """Read token, certificate and key anew; keep the old ones if these do not work."""

    to = "heartbeat-sender"
    command_id: str


# The runner-watcher.


@frozen_value
class ProvideRunner(Order):
    """See that a runner of this name listens: adopt it if it lives, else register."""

    to = "runner-watcher"
    name: str
    #: Seconds to wait first: the back-off after a crash.
    delay_seconds: float = 0.0
    #: Whether a registration that is still on disk may be used again.
    keep_registration: bool = False
    #: A run that is of no more use and is killed first; empty for none.
    instead_of: str = ""
    #: SHA-256 of registration tokens that were already used.
    spent_tokens: list[str] = field(default_factory=list)
    #: The last run that was reported from its launch to its end; another one of this
    #: name was launched by a watcher that died before it could say so.
    former_run: str = ""


@frozen_value
class WatchRunner(Order):
    """Go on watching the run that was launched before.

    A `minimal` watch reads no logs and no hooks, since whatever is in them may have
    killed the watchers before: it reports the run's end from what the shim or the
    service manager recorded.
    """

    to = "runner-watcher"
    run_id: str
    minimal: bool = False


@frozen_value
class DrainRunner(Order):
    """Take no new job: stop the listener while it is idle, leave it while it is not."""

    to = "runner-watcher"


@frozen_value
class StopRunner(Order):
    """End the runner and take its registration back; RunnerRemoved is the answer.

    SIGINT to the listener, the grace period, then SIGKILL for what is left.
    """

    to = "runner-watcher"
    #: Seconds that the listener gets to end by itself before SIGINT.
    settle_seconds: float = 0.0
    #: Seconds between SIGINT and SIGKILL; None: as configured.
    grace_seconds: float | None = None
    #: Why, which becomes the cause of a job that is stopped with it: `shutdown`,
    #: `timeout` or `termination_notice`.
    cause: str = "shutdown"


@frozen_value
class ShowStatus(Order):
    """What ``/metrics`` and ``/readyz`` say of the agent itself."""

    to = "metrics-sampler"
    snapshot: dict[str, Any] = field(repr=False)

    @property
    def is_replaceable(self) -> bool:
        """Only the latest counts."""
        return True
