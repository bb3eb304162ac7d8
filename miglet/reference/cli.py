"""``miglet-controller``: the reference controller and what to do with a running one.

Everything that is printed is printed here; mistakes are one line on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from miglet import __version__
from miglet.errors import DONE, MigletError

try:
    from miglet.reference import verbs
    from miglet.reference.client import Access, Remote, connected
    from miglet.reference.command_queue import LEASE_SECONDS
    from miglet.reference.server import Options, log_to_stderr, serve
except ModuleNotFoundError as missing:
    if missing.name != "aiohttp":
        raise
    sys.exit("miglet-controller needs aiohttp: pip install 'miglet[controller]'")

#: What a shell makes of a program ended by Ctrl-C.
INTERRUPTED = 130

Lines = Callable[[Remote], AsyncIterator[str]]


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    arguments = _parser().parse_args(words)
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
        lease_seconds=arguments.command_lease,
    )
    serve(options, announce=partial(print, flush=True))
    return DONE


def run_vms(arguments: argparse.Namespace) -> int:
    """List every machine with its state and health."""
    return _print_lines(arguments, verbs.vms)


def run_events(arguments: argparse.Namespace) -> int:
    """Print the events of a machine, one line each."""
    verb = verbs.follow if arguments.follow else verbs.events
    lines = partial(verb, vm_id=arguments.vm, as_json=arguments.json)
    return _print_lines(arguments, lines)


def run_command(arguments: argparse.Namespace) -> int:
    """Give a machine a command; prints its id, with --wait its outcome too."""
    request = {
        "type": arguments.type,
        "parameters": verbs.parameters(arguments.parameters),
        "expires_at": arguments.expires_at,
    }
    verb = verbs.command_and_wait if arguments.wait else verbs.command
    return _print_lines(arguments, partial(verb, vm_id=arguments.vm, request=request))


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="miglet-controller", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    verb = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add_serve(verb.add_parser("serve", help=run_serve.__doc__))
    for name, run, add_arguments in (
        ("vms", run_vms, None),
        ("events", run_events, _add_events),
        ("command", run_command, _add_command),
    ):
        each = verb.add_parser(name, help=run.__doc__)
        each.set_defaults(run=run)
        if add_arguments:
            add_arguments(each)
        _add_access(each)
    return parser


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
    interval = "seconds between a machine's heartbeats, default %(default)s"
    add("--heartbeat-interval", type=_seconds, default=15.0, help=interval)
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


def _add_access(verb: argparse.ArgumentParser) -> None:
    access = verb.add_argument_group("the controller")
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
