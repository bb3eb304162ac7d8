"""What the service, or the test, can tell an idle Listener: one function a kind.

Each returns the exit code if the Listener ends by it, else None.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.runner_double import times
from tests.runner_double.dispatcher import Dispatcher, lose_registration
from tests.runner_double.flood import flood
from tests.runner_double.host import truthy
from tests.runner_double.session import UNREACHABLE
from tests.runner_double.update import play_update

if TYPE_CHECKING:
    from tests.runner_double.listener import Listener

RETRYABLE = 2
VERSION_DEPRECATED = 7
#: After so many poll errors in one wait the Listener ends.
POLL_ERROR_LIMIT = 10
FEW_ERRORS = 5
RETURNS_DEPRECATED = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"


def job(listener: Listener, message: dict[str, Any]) -> int | None:
    """A job for this runner."""
    return listener.take_job(message)


def ghost(listener: Listener, message: dict[str, Any]) -> int | None:
    """A job that is lost between message and acquire; the Listener listens on."""
    dispatcher = Dispatcher(listener, message)
    dispatcher.announce()
    listener.pause(listener.host.plan.times.acquire)
    dispatcher.fail_to_acquire()
    return None


def acquire_hangs(listener: Listener, message: dict[str, Any]) -> int | None:
    """The service never answers the acquisition, which has no limit of its own."""
    Dispatcher(listener, message).announce()
    listener.host.call("acquire")
    listener.wait(lambda: False, None)
    return None


def request_unknown(listener: Listener, message: dict[str, Any]) -> int | None:
    """The acknowledgement is answered with 404: the job went elsewhere."""
    dispatcher = Dispatcher(listener, message)
    dispatcher.announce()
    listener.pause(0.03)
    dispatcher.find_no_job()
    return listener.end_without_job()


def cancel(listener: Listener, message: dict[str, Any]) -> int | None:
    """A cancel that comes too late is nothing."""
    return None


def deleted(listener: Listener, message: dict[str, Any]) -> int | None:
    """The registration is gone; noticed by the next poll."""
    lose_registration(listener)
    return listener.end_unregistered()


def poll_retries(listener: Listener, message: dict[str, Any]) -> int | None:
    """Polls that fail and are tried again in silence; `seconds` are real ones."""
    host = listener.host
    host.trace.write("BrokerServer", "Catch exception during request", "ERR")
    listener.wait(lambda: False, message.get("seconds", 1.0))
    return None


def poll_errors(listener: Listener, message: dict[str, Any]) -> int | None:
    """Errors in a row; nothing is printed when they are over."""
    for number in range(1, message.get("count", 3) + 1):
        listener.session.connect_error(UNREACHABLE)
        if number == POLL_ERROR_LIMIT:
            listener.host.terminal.error(f"An error occurred: {UNREACHABLE}")
            return RETRYABLE
        listener.pause(20.0 if number <= FEW_ERRORS else 45.0)
    return None


def update(listener: Listener, message: dict[str, Any]) -> int | None:
    """A newer version is pushed."""
    return play_update(listener.host, message, listener.runs_once)


def deprecated(listener: Listener, message: dict[str, Any]) -> int | None:
    """The service refuses this version; the words are the service's, if it has any."""
    host = listener.host
    text = message.get(
        "text",
        f"Runner version v{host.version} is deprecated and cannot receive messages.",
    )
    listener.session.delete(times.DELETE_SESSION)
    host.terminal.error(f"An error occurred: {text}")
    host.rest(times.EXIT)
    return VERSION_DEPRECATED if truthy(os.environ.get(RETURNS_DEPRECATED)) else 1


def token_revoked(listener: Listener, message: dict[str, Any]) -> int | None:
    """Goes to the log alone."""
    listener.host.trace.write(
        "Runner", "Runner OAuth token has been revoked. Unable to pull message.", "ERR"
    )
    return 0


def exit_with(listener: Listener, message: dict[str, Any]) -> int | None:
    """End with the code that the plan names."""
    return message.get("exit_code", 1)


def flood_output(listener: Listener, message: dict[str, Any]) -> int | None:
    """Hostile output while idle."""
    flood(message)
    listener.host.record("flooded")
    return None


def stdout_closed(listener: Listener, message: dict[str, Any]) -> int | None:
    """The Listener gives up its outputs and lives on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return None


def stdout_held(listener: Listener, message: dict[str, Any]) -> int | None:
    """A process that outlives the Listener keeps its outputs open."""
    seconds = str(message.get("held_seconds", 600))
    holder = subprocess.Popen(
        ["sleep", seconds], cwd=listener.host.root, stdin=subprocess.DEVNULL
    )
    listener.host.record("stdout_held", holder=holder.pid)
    return None


KINDS: dict[str, Callable[[Listener, dict[str, Any]], int | None]] = {
    "job": job,
    "ghost": ghost,
    "acquire_hangs": acquire_hangs,
    "request_unknown": request_unknown,
    "cancel": cancel,
    "deleted": deleted,
    "poll_errors": poll_errors,
    "poll_retries": poll_retries,
    "update": update,
    "deprecated": deprecated,
    "token_revoked": token_revoked,
    "exit": exit_with,
    "flood": flood_output,
    "stdout_closed": stdout_closed,
    "stdout_held": stdout_held,
}
