"""``miglet-controller``: the reference controller and what to do with a running one.

Everything that is printed is printed here; mistakes are one line on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from miglet import __version__
from miglet.errors import DONE, MISCONFIGURED, MigletError

try:
    from miglet.reference.client import (
        Access,
        Remote,
        RequestRefused,
        connected,
        machine_path,
    )
    from miglet.reference.event_import import find_events
    from miglet.reference.fleet import MINIMUM_SILENCE_SECONDS
    from miglet.reference.server import Options, log_to_stderr, serve
    from miglet.reference.store import LEASE_SECONDS
except ModuleNotFoundError as missing:
    if missing.name != "aiohttp":
        raise
    sys.exit("miglet-controller needs aiohttp: pip install 'miglet[controller]'")

#: How long one request is held when waiting for news, in seconds.
HELD_SECONDS = 25

#: Of each type of event, the keys of ``data`` that are shown.
SHOWN_KEYS = {
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


#: Commands whose outcome ``done`` means accepted: what was ordered takes its time.
ACCEPTED_ONLY = ("Drain", "Shutdown")


class BadArgument(MigletError):
    """What was typed makes no command."""

    exit_status = 2


class CommandNotDone(MigletError):
    """The machine rejected the command, or failed to execute it."""

    exit_status = 1


class ImportIncomplete(MigletError):
    """Some events of a file could not be read, or were refused."""

    exit_status = 1


class FileUnreadable(MigletError):
    """A file that was named cannot be read."""

    exit_status = MISCONFIGURED


async def vms(remote: Remote) -> AsyncIterator[str]:
    """Every machine, with its state and health."""
    machines = (await remote.get("vms"))["vms"]
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
    answer = await remote.post(machine_path(vm_id, "commands"), request)
    yield answer["id"]


async def command_and_wait(
    remote: Remote, vm_id: str, request: Mapping[str, Any]
) -> AsyncIterator[str]:
    """Queue a command, then wait for its outcome; CommandNotDone if it is another."""
    answer = await remote.post(machine_path(vm_id, "commands"), request)
    yield answer["id"]
    path, status = machine_path(vm_id, "commands", answer["id"]), {"outcome": None}
    while status["outcome"] is None:
        status = await remote.get(path, {"wait": str(HELD_SECONDS)})
    if status["outcome"] != "done":
        raise CommandNotDone(plain(f"{status['outcome']}: {status['reason']}"))
    accepted = status["type"] in ACCEPTED_ONLY
    yield "accepted" if accepted else "done"


async def import_events(remote: Remote, path: Path) -> AsyncIterator[str]:
    """Send each event of a file to the controller; what became of each file's events.

    Raises FileUnreadable, or ImportIncomplete once all others are imported.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            found = find_events(lines)
    except OSError as error:
        raise FileUnreadable(f"cannot read {path}: {error.strerror}") from error
    imported, duplicates, problems = 0, 0, list(found.problems)
    for event in found.events:
        place = machine_path(event["vm_id"], "events")
        try:
            answer = await remote.post(place, event, idempotency_key=event["id"])
        except RequestRefused as error:
            problems.append(f"event {event['id']} of {event['vm_id']}: {error}")
            continue
        if answer.get("duplicate"):
            duplicates += 1
        else:
            imported += 1
    yield f"{imported} events imported, {duplicates} were stored already"
    if problems:
        raise ImportIncomplete(plain("; ".join(problems)))


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
        *_shown_values(event),
    ]
    return plain(" ".join(words))


def plain(text: str) -> str:
    """`text` without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _shown_values(event: Mapping[str, Any]) -> list[str]:
    keys = SHOWN_KEYS.get(event["type"], ())
    found = {key: event["data"].get(key) for key in keys}
    return [f"{key}={value}" for key, value in found.items() if value is not None]


async def _batch(remote: Remote, vm_id: str, after: int, wait: int) -> list[Any]:
    query = {"after": str(after), "wait": str(wait)}
    return (await remote.get(machine_path(vm_id, "events"), query))["events"]


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


#: What a shell makes of a program ended by Ctrl-C.
INTERRUPTED = 130

Lines = Callable[[Remote], AsyncIterator[str]]


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    arguments = parser().parse_args(words)
    try:
        return arguments.run(arguments)
    except MigletError as error:
        print(f"miglet-controller: {error}", file=sys.stderr)
        return error.exit_status
    except (KeyboardInterrupt, BrokenPipeError):
        return INTERRUPTED


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve agents and operators until SIGTERM."""
    log_to_stderr(arguments.log_level)
    host, port = arguments.listen
    options = Options(
        host=host,
        port=port,
        database=arguments.database,
        token_file=arguments.token_file,
        anonymous=arguments.anonymous,
        registration_token_file=arguments.registration_token_file,
        removal_token_file=arguments.removal_token_file,
        runner_url=arguments.runner_url,
        tls_certificate=arguments.tls_cert,
        tls_key=arguments.tls_key,
        client_ca=arguments.client_ca,
        heartbeat_interval_seconds=arguments.heartbeat_interval,
        minimum_silence_seconds=arguments.minimum_silence,
        lease_seconds=arguments.command_lease,
    )
    serve(options, announce=partial(print, flush=True))
    return DONE


def run_vms(arguments: argparse.Namespace) -> int:
    """List every machine with its state and health."""
    return _print_lines(arguments, vms)


def run_events(arguments: argparse.Namespace) -> int:
    """Print the events of a machine, one line each."""
    lines_of = follow if arguments.follow else events
    lines = partial(lines_of, vm_id=arguments.vm, as_json=arguments.json)
    return _print_lines(arguments, lines)


def run_command(arguments: argparse.Namespace) -> int:
    """Give a machine a command; prints its id, with --wait its outcome too."""
    request = {
        "type": arguments.type,
        "parameters": parameters(arguments.parameters),
        "expires_at": arguments.expires_at,
    }
    lines_of = command_and_wait if arguments.wait else command
    return _print_lines(
        arguments, partial(lines_of, vm_id=arguments.vm, request=request)
    )


def run_import(arguments: argparse.Namespace) -> int:
    """Import the MIGLET-EVENT lines of a file or of a serial console's log."""
    return _print_lines(arguments, partial(import_events, path=arguments.file))


def _print_lines(arguments: argparse.Namespace, lines: Lines) -> int:
    access = Access(
        endpoint=arguments.endpoint,
        token_file=arguments.token_file,
        ca=arguments.ca,
        certificate=arguments.cert,
        key=arguments.key,
    )
    asyncio.run(_print_each(access, lines))
    return DONE


async def _print_each(access: Access, lines: Lines) -> None:
    async with connected(access) as remote:
        async for line in lines(remote):
            print(line, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="miglet-controller",
        description="Run the reference controller, or query and command its machines.",
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help=run_serve.__doc__))
    for name, run, add_arguments in (
        ("vms", run_vms, None),
        ("events", run_events, _add_events),
        ("command", run_command, _add_command),
        ("import", run_import, _add_import),
    ):
        each = commands.add_parser(name, help=run.__doc__)
        each.set_defaults(run=run)
        if add_arguments:
            add_arguments(each)
        _add_access(each)
    return top


def _add_serve(serving: argparse.ArgumentParser) -> None:
    serving.set_defaults(run=run_serve)
    add = serving.add_argument
    listen = "address, default %(default)s; port 0 takes a free one"
    add("--listen", type=_address, default="127.0.0.1:8080", help=listen)
    add("--database", type=Path, required=True, help="SQLite file, made if missing")
    add("--token-file", type=Path, help="bearer tokens that may call, one a line")
    add("--anonymous", action="store_true", help="let everybody call")
    _add_tokens(serving)
    _add_tls(serving)
    interval = "of machines whose heartbeats name none, default %(default)s seconds"
    add("--heartbeat-interval", type=_seconds, default=15.0, help=interval)
    silence = "seconds before a silent machine is unhealthy, default %(default)s"
    minimum = MINIMUM_SILENCE_SECONDS
    add("--minimum-silence", type=_seconds, default=minimum, help=silence)
    lease = "seconds after which an open command is handed out again"
    add("--command-lease", type=_seconds, default=LEASE_SECONDS, help=lease)
    levels = ("debug", "info", "warning", "error")
    add("--log-level", choices=levels, default="warning", help="default %(default)s")


def _add_tokens(serving: argparse.ArgumentParser) -> None:
    tokens = serving.add_argument_group("tokens for runners")
    add = tokens.add_argument
    add("--registration-token-file", type=Path, help="one a line, handed out in turn")
    add("--removal-token-file", type=Path, help="the same for removal; none: 404")
    add("--runner-url", help="organisation or repository that runners register with")


def _add_tls(serving: argparse.ArgumentParser) -> None:
    tls = serving.add_argument_group("TLS")
    tls.add_argument("--tls-cert", type=Path, help="certificate chain, PEM")
    tls.add_argument("--tls-key", type=Path, help="its key, if in a file of its own")
    client_ca = "let holders of certificates of this authority call"
    tls.add_argument("--client-ca", type=Path, help=client_ca)


def _add_events(events: argparse.ArgumentParser) -> None:
    events.add_argument("vm", metavar="VM")
    events.add_argument("--follow", action="store_true", help="wait for those to come")
    events.add_argument("--json", action="store_true", help="each as it was sent")


def _add_command(command: argparse.ArgumentParser) -> None:
    command.add_argument("vm", metavar="VM")
    command.add_argument("type", metavar="TYPE", help="e.g. Drain or set_log_level")
    nested = "e.g. mode=immediate or config.heartbeat.interval=5s"
    command.add_argument("parameters", metavar="KEY=VALUE", nargs="*", help=nested)
    command.add_argument("--expires-at", help="RFC 3339; the machine rejects it later")
    command.add_argument("--wait", action="store_true", help="wait for the outcome")


def _add_import(importing: argparse.ArgumentParser) -> None:
    lines = "other lines and prefixes are ignored; an event is stored once"
    importing.add_argument("file", metavar="FILE", type=Path, help=lines)


def _add_access(parser: argparse.ArgumentParser) -> None:
    access = parser.add_argument_group("the controller")
    add = access.add_argument
    add("--endpoint", default="http://127.0.0.1:8080", help="default %(default)s")
    add("--token-file", type=Path, help="bearer token, the first line")
    add("--ca", type=Path, help="authority of the controller's certificate")
    add("--cert", type=Path, help="client certificate")
    add("--key", type=Path, help="its key, if in a file of its own")


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
