"""What the service, or the test, can tell an idle Listener: one function a kind.

Each returns the exit code if the Listener ends by it, else None.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.runner_double import registry
from tests.runner_double.dispatcher import Dispatcher
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
    dispatcher.acquire()
    dispatcher.skip()
    return None


def cancel(listener: Listener, message: dict[str, Any]) -> int | None:
    """A cancel that comes too late is nothing."""
    return None


def deleted(listener: Listener, message: dict[str, Any]) -> int | None:
    """The registration is gone; noticed by the next poll."""
    host = listener.host
    name = host.settings().get("agentname", "")
    registry.strike(host.root, name, "deleted")
    host.terminal.error(
        "The runner no longer exists on the server. Cleaning up local configuration."
    )
    host.forget_configuration()
    return 0


def poll_errors(listener: Listener, message: dict[str, Any]) -> int | None:
    """Errors in a row; nothing is printed when they are over."""
    for number in range(1, message.get("count", 3) + 1):
        listener.session.complain(UNREACHABLE)
        if number == POLL_ERROR_LIMIT:
            listener.host.terminal.error(f"An error occurred: {UNREACHABLE}")
            return RETRYABLE
        listener.pause(20.0 if number <= FEW_ERRORS else 45.0)
    return None


def update(listener: Listener, message: dict[str, Any]) -> int | None:
    """A newer version is pushed."""
    return play_update(listener.host, message, listener.runs_once)


def deprecated(listener: Listener, message: dict[str, Any]) -> int | None:
    """The service refuses this version."""
    host = listener.host
    host.terminal.error(
        f"An error occurred: Runner version v{host.version} is deprecated and cannot"
        " receive messages."
    )
    return VERSION_DEPRECATED if truthy(os.environ.get(RETURNS_DEPRECATED)) else 1


def token_revoked(listener: Listener, message: dict[str, Any]) -> int | None:
    """Told to the log alone."""
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
    listener.host.tell("flooded")
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
    listener.host.tell("stdout_held", holder=holder.pid)
    return None


KINDS: dict[str, Callable[[Listener, dict[str, Any]], int | None]] = {
    "job": job,
    "ghost": ghost,
    "cancel": cancel,
    "deleted": deleted,
    "poll_errors": poll_errors,
    "update": update,
    "deprecated": deprecated,
    "token_revoked": token_revoked,
    "exit": exit_with,
    "flood": flood_output,
    "stdout_closed": stdout_closed,
    "stdout_held": stdout_held,
}
