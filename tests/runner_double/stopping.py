"""How a Listener is stopped: SIGINT says so, SIGTERM does not and has a limit.

After the first of them a SIGINT changes nothing, a SIGTERM ends the process at once.
"""

from __future__ import annotations

import signal

from tests.runner_double.host import Exit, Host

SHUTDOWN_SECONDS = 30.0
TERMINATED = 143


class StopSignals:
    """The signals of one Listener; `reason` is why it is to stop, if it is."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.reason: str | None = None

    @property
    def terminated(self) -> bool:
        return self.reason == "OperatingSystemShutdown"

    def install(self) -> None:
        self._host.loop.on_signals(
            {signal.SIGINT: self._on_interrupt, signal.SIGTERM: self._on_terminate}
        )

    def ignore(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_interrupt(self) -> None:
        self._host.record("signal", process="listener", signal="INT")
        if not self.reason:
            self._host.terminal.line("Exiting...")
            self._begin("UserCancelled")

    def _on_terminate(self) -> None:
        self._host.record("signal", process="listener", signal="TERM")
        if self.reason:
            raise Exit(TERMINATED)
        self._begin("OperatingSystemShutdown")
        self._host.loop.call_later(
            self._host.plan.scaled(SHUTDOWN_SECONDS), self._give_up
        )

    def _begin(self, reason: str) -> None:
        self.reason = reason
        self._host.trace.write("HostContext", f"Runner will be shutdown for {reason}")

    def _give_up(self) -> None:
        raise Exit(TERMINATED)
