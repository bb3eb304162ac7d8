"""The methods of the control socket: what an operator may ask and order.

A method that reads answers from what the arbiter knows. A method that gives a command
posts the fact that a validated command of the controller leads to, so that the same row
of the lifecycle's table obeys it. Nothing here waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miglet.agent.arbiter import Arbiter
from miglet.control.rpc import BAD_PARAMS, UNKNOWN_METHOD, RpcError
from miglet.control.server import Peer
from miglet.logger import UnknownLevel, level_named
from miglet.messages.facts import CommandValidated
from miglet.redaction import redact
from miglet.runner.run import Run

#: Most lines of the runner's output, and most events, in one answer.
MOST_LINES = 500

Params = dict[str, Any]
Method = Callable[[Arbiter, Params, Peer], Any]
Parameters = Callable[[Params], dict[str, Any]]

#: Every method by its name, filled as the functions below are defined.
METHODS: dict[str, Method] = {}

#: The command that a method gives, by the method's name. These methods change
#: something; only root and MIGlet's own user may call them.
COMMAND_OF: dict[str, str] = {}


def method(answer: Method) -> Method:
    """Register a function as the method of its name, which only reads."""
    METHODS[answer.__name__] = answer
    return answer


def gives(command: str) -> Callable[[Parameters], Parameters]:
    """Register a function as the method that gives `command` with its parameters."""

    def register(parameters: Parameters) -> Parameters:
        def answer(arbiter: Arbiter, params: Params, peer: Peer) -> Any:
            operator = f"operator (uid {peer.uid})"
            fact = CommandValidated(
                "", command, parameters(params), requested_by=operator
            )
            arbiter.inbox.append(fact)
            return {"accepted": True}

        METHODS[parameters.__name__] = answer
        COMMAND_OF[parameters.__name__] = command
        return parameters

    return register


def answer(arbiter: Arbiter, name: str, params: Params, peer: Peer) -> Any:
    """The result of the method; RpcError says what is wrong with the request."""
    if name not in METHODS:
        raise RpcError(UNKNOWN_METHOD, f"there is no method {name!r}")
    return METHODS[name](arbiter, params, peer)


@method
def status(arbiter: Arbiter, params: Params, peer: Peer) -> Any:
    """What the machine is doing."""
    return arbiter.status()


@method
def events(arbiter: Arbiter, params: Params, peer: Peer) -> Any:
    """The last events and what became of them."""
    return arbiter.journal.recent(_number(params, "limit", 20))


@method
def config(arbiter: Arbiter, params: Params, peer: Peer) -> Any:
    """Each effective setting and where it came from."""
    return arbiter.knowledge.origins


@method
def metrics(arbiter: Arbiter, params: Params, peer: Peer) -> Any:
    """The latest sample of the machine."""
    return arbiter.knowledge.health_of_machine(time.monotonic())


@method
def runner_log(arbiter: Arbiter, params: Params, peer: Peer) -> Any:
    """The last lines that the runner printed."""
    wanted = _number(params, "lines", 50)
    folder = (arbiter.vm.runner or {}).get("folder")
    run = Run.found_in(Path(folder)) if folder else None
    lines = redact(run.printed()).splitlines() if run else []
    return {"lines": lines[-wanted:]}


@gives("Drain")
def drain(params: Params) -> dict[str, Any]:
    """Finish the job, then shut down."""
    return {"reason": _text(params, "reason")}


@gives("Shutdown")
def shutdown(params: Params) -> dict[str, Any]:
    """Shut down after the job or at once."""
    mode = params.get("mode", "after_job")
    if mode not in ("after_job", "immediate"):
        raise RpcError(BAD_PARAMS, "mode is after_job or immediate")
    return {"mode": mode, "reason": _text(params, "reason")}


@gives("SetLogLevel")
def set_log_level(params: Params) -> dict[str, Any]:
    """Log from another level on."""
    try:
        return {"level": level_named(_text(params, "level") or "")}
    except UnknownLevel as error:
        raise RpcError(BAD_PARAMS, f"level: expected {error.hint}") from None


def _number(params: Params, name: str, default: int) -> int:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RpcError(BAD_PARAMS, f"{name} is a number from 1 on")
    return min(value, MOST_LINES)


def _text(params: Params, name: str) -> str | None:
    value = params.get(name)
    if value is None or (isinstance(value, str) and len(value) <= 256):
        return value
    raise RpcError(BAD_PARAMS, f"{name} is a text of at most 256 characters")
