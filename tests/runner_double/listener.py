"""`Runner.Listener run`: connect, listen, take jobs, and end as the official one ends.

A signal ends any wait but the one for a Worker; the Worker is informed, and waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tests.runner_double import mailbox, scenarios, times
from tests.runner_double.console import stamp
from tests.runner_double.dispatcher import Dispatcher
from tests.runner_double.host import RESULTS, Exit, Host, truthy
from tests.runner_double.messages import KINDS
from tests.runner_double.options import Options
from tests.runner_double.session import Session
from tests.runner_double.stopping import TERMINATED, StopSignals

RETURNS_RESULT = "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED"
ONCE_WARNING = (
    "Warning: '--once' is going to be deprecated in the future, please consider to use"
    " '--ephemeral' during runner registration.\n"
    "https://docs.github.com/en/actions/hosting-your-own-runners"
)


class Stopped(Exception):
    """A signal has ended what the Listener was waiting for."""


class Listener:
    """One start of the Listener."""

    def __init__(self, host: Host, options: Options) -> None:
        self.host = host
        entry = host.plan.next_entry(host.root, "listener")
        self.entry = scenarios.expand(entry)
        self._signals = StopSignals(host)
        settings = host.settings()
        self._ephemeral = truthy(settings.get("ephemeral", False))
        self._returns_result = truthy(os.environ.get(RETURNS_RESULT))
        self._once = options.flag("once")
        self._messages = list(self.entry["messages"])
        self.session = Session(self, self.entry.get("session", {}))

    @property
    def runs_once(self) -> bool:
        return self._ephemeral or self._once or self._returns_result

    def run(self) -> int:
        """The exit code."""
        if self.entry.get("ignore_signals"):
            self._signals.ignore()
        else:
            self._signals.install()
        self.host.open_wakeup()
        (self.host.root / "_work").mkdir(exist_ok=True)
        if self._once:
            self.host.terminal.line(ONCE_WARNING)
        try:
            return self._serve()
        except Stopped:
            return self._stop()
        except Exit as exit:
            return exit.code

    @property
    def stopping(self) -> str | None:
        return self._signals.reason

    def pause(self, seconds: float) -> None:
        """Let a real duration pass, to scale; Stopped if a signal comes."""
        self.wait(lambda: False, self.host.plan.scaled(seconds))

    def pause_until_age(self, seconds: float) -> None:
        """Become so old in real time, to scale; Stopped if a signal comes."""
        left = self.host.plan.scaled(seconds) - times.process_age()
        self.wait(lambda: False, left)

    def wait(self, condition: Callable[[], object], seconds: float | None) -> None:
        """Run until `condition` holds; Stopped if a signal comes."""
        self.host.loop.run_until(lambda: self.stopping or condition(), seconds)
        if self.stopping:
            raise Stopped

    def take_job(self, job: dict[str, Any]) -> int | None:
        """Run a job; the exit code, if the Listener ends with it."""
        dispatcher = Dispatcher(self, job)
        dispatcher.acquire()
        result = dispatcher.run()
        if self.stopping:
            raise Stopped
        if dispatcher.registration_gone:
            return self.end_unregistered()
        if not self.runs_once:
            return None
        return self._end_with_job(result)

    def end_unregistered(self) -> int:
        """The end of a Listener whose registration the service has removed."""
        self.host.forget_configuration()
        self.host.rest(times.EXIT)
        return 0

    def end_without_job(self) -> int:
        """The end of an ephemeral Listener whose job is gone; files are removed."""
        self.session.delete(times.DELETE_SESSION)
        return self.end_unregistered()

    def _serve(self) -> int:
        self.session.create()
        self.host.terminal.line(f"Current runner version: '{self.host.version}'")
        self.host.record("listening")
        self.host.terminal.line(f"{stamp()}: Listening for Jobs")
        while True:
            message = self._next_message()
            code = KINDS[message["kind"]](self, message)
            if code is not None:
                return code

    def _next_message(self) -> dict[str, Any]:
        """The plan's next message when it is due, or one from the test before that."""
        head = self._messages[:1]
        due: list[float] = []
        if head and not head[0].get("hold_job"):
            delay = head[0].get("after", 0.0)
            self.host.loop.call_later(delay, lambda: due.append(0.0))
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            mail = mailbox.take(self.host.root, "mail")
            if mail is None and head and self._is_due(head[0], due):
                mail = self._messages.pop(0)
            found.extend([mail] if mail else [])
            return bool(found)

        self.wait(arrived, None)
        return found[0]

    def _is_due(self, message: dict[str, Any], due: list[float]) -> bool:
        if message.get("hold_job"):
            return mailbox.take(self.host.root, "released") is not None
        return bool(due)

    def _end_with_job(self, result: str | None) -> int:
        host = self.host
        host.trace.write(
            "Runner",
            "Job has finished at backend, the runner will exit since it is running"
            " under onetime use mode.",
        )
        self.session.delete(times.DELETE_SESSION)
        if self._ephemeral:
            host.forget_configuration()
        host.rest(times.EXIT)
        if not self._returns_result:
            return 0
        return 100 + RESULTS.index(result or "Succeeded")

    def _stop(self) -> int:
        """The end after a signal: files and registration stay."""
        self.host.cancelled = True
        self.session.delete(
            self.entry.get("delete_session_seconds", times.DELETE_SESSION)
        )
        self.host.rest(times.EXIT)
        if self._signals.terminated:
            return self.entry.get("term_code", TERMINATED)
        return 0
