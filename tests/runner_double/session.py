"""How the Listener connects: conflicts, network failures, refusals, or at once.

`Connected to GitHub` is printed before the session exists, at every try; only the first
error of a row is printed (actions/runner BrokerMessageListener.cs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.runner_double import registry
from tests.runner_double.configure import CLOCK
from tests.runner_double.console import stamp
from tests.runner_double.host import Exit

if TYPE_CHECKING:
    from tests.runner_double.listener import Listener

RETRY_SECONDS = 30.0
CONFLICT_LIMIT_SECONDS = 240.0
CLOCK_LIMIT_SECONDS = 1800.0
SESSION_CONFLICT = 5
UNREACHABLE = (
    "Resource temporarily unavailable (broker.actions.githubusercontent.com:443)"
)
DELETED = (
    "Failed to create a session. The runner registration has been deleted from the"
    " server, please re-configure. Runner registrations are automatically deleted for"
    " runners that have not connected to the service recently."
)
UNKNOWN = "The runner no longer exists on the server. Please reconfigure the runner."
UNAUTHORISED = (
    "You are not authorized to access https://broker.actions.githubusercontent.com/."
)


class Session:
    """The session of `listener`, created as `wishes` say."""

    def __init__(self, listener: Listener, wishes: dict[str, Any]) -> None:
        self._listener = listener
        self._host = listener.host
        self._wishes = wishes
        self._disconnected = False

    @property
    def source(self) -> str:
        """What the log calls the part of the Listener that talks to the service."""
        broker = self._host.plan.uses_broker
        return "BrokerMessageListener" if broker else "MessageListener"

    def create(self) -> None:
        """Return when connected; Exit when the service refuses for good."""
        times = self._host.plan.times
        self._refuse_for_good()
        self._listener.pause_until_age(times.connected)
        for _ in range(self._wishes.get("network_errors", 0)):
            self._print_connected()
            self.connect_error(UNREACHABLE)
            self._listener.pause(RETRY_SECONDS)
        self._conflict()
        self._print_connected()
        self._host.call("session")
        self._listener.pause_until_age(times.listening)
        if self._disconnected:
            self._host.terminal.line(f"{stamp()}: Runner reconnected.")
        self._host.trace.write(self.source, "Session created.")
        self._host.count("SessionCreated")
        self._host.record("session_created")

    def delete(self, seconds: float) -> None:
        """Delete it, which takes so many real seconds."""
        self._host.trace.write("Runner", "Deleting Runner Session...")
        self._host.rest(seconds)
        self._host.call("session-deleted")
        self._host.record("session_deleted")

    def connect_error(self, message: str) -> None:
        """The connect error, if it is the first of its row."""
        if not self._disconnected:
            self._host.terminal.error(
                f"{stamp()}: Runner connect error: {message}."
                " Retrying until reconnected."
            )
        self._disconnected = True

    def _print_connected(self) -> None:
        self._host.terminal.line()
        self._host.terminal.success("Connected to GitHub")
        self._host.terminal.line()

    def _conflict(self) -> None:
        for conflict in range(1, self._wishes.get("conflicts", 0) + 1):
            self._print_connected()
            self._host.terminal.error("A session for this runner already exists.")
            if conflict * RETRY_SECONDS >= CONFLICT_LIMIT_SECONDS:
                self._give_up(
                    "Stop retry on SessionConflictException after retried for"
                    f" {CONFLICT_LIMIT_SECONDS:.0f} seconds.",
                    "Error: Conflict",
                    SESSION_CONFLICT,
                )
            self.connect_error("Error: Conflict")
            self._listener.pause(RETRY_SECONDS)

    def _give_up(self, reason: str, message: str, code: int = 1) -> None:
        self._host.terminal.error(reason)
        self._host.terminal.error(f"Failed to create session. {message}")
        raise Exit(code)

    def _refuse_for_good(self) -> None:
        fatal = self._wishes.get("fatal")
        name = self._host.settings().get("agentname")
        if fatal is None and name in registry.read(self._host.root)["deleted"]:
            fatal = "deleted"
        if fatal is not None:
            FATAL[fatal](self)
            raise Exit(1)

    def fail_for_work_folder(self) -> None:
        path = self._host.root / self._host.settings().get("workfolder", "_work")
        self._host.terminal.error(
            f"Fail to create and validate runner's work directory '{path}'."
        )

    def fail_as_deleted(self) -> None:
        self._print_connected()
        self._host.terminal.error(DELETED)

    def fail_as_unknown(self) -> None:
        self._print_connected()
        self._give_up(UNKNOWN, "Runner not found")

    def fail_as_unauthorised(self) -> None:
        self._print_connected()
        self._give_up(UNAUTHORISED, UNAUTHORISED)

    def fail_for_the_clock(self) -> None:
        """The same line every 30 s for half an hour."""
        for _ in range(int(CLOCK_LIMIT_SECONDS / RETRY_SECONDS)):
            self._print_connected()
            self._host.terminal.error(CLOCK)
            self._listener.pause(RETRY_SECONDS)
        self._give_up(
            "Stopped retrying OAuth token request exception after"
            f" {CLOCK_LIMIT_SECONDS:.0f} seconds.",
            "clock",
        )


FATAL: dict[str, Callable[[Session], None]] = {
    "work_folder": Session.fail_for_work_folder,
    "deleted": Session.fail_as_deleted,
    "unknown": Session.fail_as_unknown,
    "authorisation": Session.fail_as_unauthorised,
    "clock": Session.fail_for_the_clock,
}
