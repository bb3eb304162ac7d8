"""What ``miglet-controller`` does with a running controller: one function a verb.

Each yields the lines to print as they come to be known, and returns nothing else;
what machines sent is stripped of control characters first.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from miglet.errors import MigletError
from miglet.reference.client import Remote, machine_path

#: How long one request is held when waiting for news, in seconds.
HELD_SECONDS = 25

#: Of each type of event, the keys of ``data`` that tell most.
TELLING = {
    "VMStarted": ("version", "machine_type"),
    "RunnerRegistered": ("runner_name", "duration_seconds"),
    "JobStarted": ("name", "repository", "source"),
    "JobHeartbeat": ("elapsed_seconds",),
    "JobCompleted": ("result", "cause", "exit_code", "duration_seconds"),
    "RunnerCrashed": ("exit_code", "signal", "will_retry"),
    "TerminationNotice": ("kind", "deadline"),
    "VMShuttingDown": ("reason", "requested_by", "detail"),
    "VMStopped": ("reason", "removal", "events_dropped"),
    "Error": ("category", "code", "message"),
    "CommandCompleted": ("command_type", "outcome", "reason"),
}


#: Commands that are done when the order is accepted: what was ordered takes its time.
GOING_ON = ("Drain", "Shutdown")


class BadArgument(MigletError):
    """What was typed makes no command."""

    exit_status = 2


class CommandNotDone(MigletError):
    """The machine rejected the command, or failed to obey it."""

    exit_status = 1


async def vms(remote: Remote) -> AsyncIterator[str]:
    """Every machine, with its state and health."""
    machines = (await remote.ask("vms"))["vms"]
    yield f"{'VM':<30} {'STATE':<22} {'HEALTH':<10} {'EVENTS':>6}  LAST HEARTBEAT"
    for each in machines:
        events = sum(each["counts"]["events"].values())
        gaps = f"  {len(each['gaps'])} GAPS" if each["gaps"] else ""
        last = each["last_heartbeat_at"] or "never"
        state = each["state"] or "unknown"
        yield plain(
            f"{each['vm_id']:<30} {state:<22} {each['health']:<10}"
            f" {events:>6}  {last}{gaps}"
        )


async def events(remote: Remote, vm_id: str, as_json: bool) -> AsyncIterator[str]:
    """The events of a machine that are there now."""
    after = 0
    while batch := await _batch(remote, vm_id, after, wait=0):
        for row in batch:
            after = row["position"]
            yield event_line(row, as_json)


async def follow(remote: Remote, vm_id: str, as_json: bool) -> AsyncIterator[str]:
    """The events of a machine, those to come as well, until interrupted."""
    after = 0
    while True:
        for row in await _batch(remote, vm_id, after, wait=HELD_SECONDS):
            after = row["position"]
            yield event_line(row, as_json)


async def command(
    remote: Remote, vm_id: str, request: Mapping[str, Any]
) -> AsyncIterator[str]:
    """Queue a command: its id."""
    answer = await remote.tell(machine_path(vm_id, "commands"), request)
    yield answer["id"]


async def command_and_wait(
    remote: Remote, vm_id: str, request: Mapping[str, Any]
) -> AsyncIterator[str]:
    """Queue a command, then wait for its outcome; CommandNotDone if it is another."""
    answer = await remote.tell(machine_path(vm_id, "commands"), request)
    yield answer["id"]
    path, status = machine_path(vm_id, "commands", answer["id"]), {"outcome": None}
    while status["outcome"] is None:
        status = await remote.ask(path, {"wait": str(HELD_SECONDS)})
    if status["outcome"] != "done":
        raise CommandNotDone(plain(f"{status['outcome']}: {status['reason']}"))
    accepted = status["type"] in GOING_ON
    yield "accepted" if accepted else "done"


def parameters(words: Sequence[str]) -> dict[str, Any]:
    """``key=value`` words as parameters: dots nest, a value is JSON where it can be.

    ``config.logging.level=debug`` is ``{"config": {"logging": {"level": "debug"}}}``.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator or not all(key.split(".")):
            raise BadArgument(f"{word!r} is not key=value")
        _set(found, key, _value(text))
    return found


def event_line(row: Mapping[str, Any], as_json: bool) -> str:
    """One stored event on one line, for people or as it was sent."""
    event = row["event"]
    if as_json:
        return json.dumps(event)
    words = [
        f"{event['sequence'] or '-':>5}",
        event["timestamp"][11:23],
        f"{event['type']:<17}",
        *(f"{key}={event[key]}" for key in ("job_id", "run_id") if event[key]),
        *_telling(event),
    ]
    return plain(" ".join(words))


def plain(text: str) -> str:
    """`text` without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _telling(event: Mapping[str, Any]) -> list[str]:
    keys = TELLING.get(event["type"], ())
    found = {key: event["data"].get(key) for key in keys}
    return [f"{key}={value}" for key, value in found.items() if value is not None]


async def _batch(remote: Remote, vm_id: str, after: int, wait: int) -> list[Any]:
    query = {"after": str(after), "wait": str(wait)}
    return (await remote.ask(machine_path(vm_id, "events"), query))["events"]


def _set(found: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    for name in outer:
        found = found.setdefault(name, {})
        if not isinstance(found, dict):
            raise BadArgument(f"{key}: {name} has a value already")
    found[last] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
