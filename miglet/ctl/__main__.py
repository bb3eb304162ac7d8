"""``miglet-ctl``: asks a running MIGlet over its control socket, and shows the answer.

It stands apart: next to nothing is imported, so that it answers at once on a busy
machine. Exit statuses are those of LSB's ``status``: 0 running, 3 not running, 4
unknown; and 1 where MIGlet refused, or ``doctor`` found something.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Collection

from miglet import __version__
from miglet.ctl import view
from miglet.ctl.client import (
    REFUSED,
    RUNNING,
    UNKNOWN,
    Connection,
    Failed,
    fields,
    items,
)
from miglet.ctl.view import problems

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes longer to import than the call takes
    from typing import Any

SOCKET = "/run/miglet/control.sock"

INTERRUPTED = 130


Run = Callable[[Connection, argparse.Namespace], int]


#: Each subcommand: what it does, and its arguments for argparse.
SUBCOMMANDS: dict[str, tuple[Run, dict[str, dict[str, Any]]]] = {}


def subcommand(
    arguments: dict[str, dict[str, Any]] | None = None,
) -> Callable[[Run], Run]:
    """Register the function below under its name; its docstring is the help."""

    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        SUBCOMMANDS[name] = run, arguments or {}
        return run

    return register


REASON = {"--reason": {"default": "miglet-ctl", "help": "why, for the records"}}
COUNT = {"-n": {"type": int, "default": 20, "dest": "count", "help": "how many"}}


@subcommand()
def status(connection: Connection, options: argparse.Namespace) -> int:
    """Show what MIGlet is doing."""
    found = fields(connection.call("status"))
    if "state" not in found:
        raise Failed("the answer is not MIGlet's status", UNKNOWN)
    return show(options, found, view.status_lines(found))


@subcommand()
def watch(connection: Connection, options: argparse.Namespace) -> int:
    """Show each change as it happens, until interrupted."""
    connection.call("watch")
    for change in connection.notices():
        clock = time.strftime("%H:%M:%S")
        show(options, change, [view.change_line(clock, change)], indent=None)
    return RUNNING


@subcommand(COUNT)
def events(connection: Connection, options: argparse.Namespace) -> int:
    """Show the last events and what became of them."""
    found = items(connection.call("events", {"limit": options.count}))
    names = ("sequence", "type", "timestamp", "status", "job_id")
    return show(options, found, view.rows_of(found, names))


@subcommand(REASON)
def drain(connection: Connection, options: argparse.Namespace) -> int:
    """Take no new job, let the present one finish, then shut down."""
    return order(connection, options, "drain", {"reason": options.reason})


@subcommand(
    {
        "--immediate": {"action": "store_true", "help": "do not wait for the job"},
        **REASON,
    }
)
def shutdown(connection: Connection, options: argparse.Namespace) -> int:
    """Shut down after the present job, or at once."""
    mode = "immediate" if options.immediate else "after_job"
    params = {"mode": mode, "reason": options.reason}
    return order(connection, options, "shutdown", params)


@subcommand({"level": {"help": "debug, info, warning or error"}})
def log_level(connection: Connection, options: argparse.Namespace) -> int:
    """Log from this level up, from now on."""
    return order(connection, options, "set_log_level", {"level": options.level})


@subcommand()
def config(connection: Connection, options: argparse.Namespace) -> int:
    """Show the effective configuration and where each value comes from."""
    found = items(connection.call("config"))
    names = ("key", "value", "source", "overrode")
    return show(options, found, view.rows_of(found, names))


@subcommand()
def metrics(connection: Connection, options: argparse.Namespace) -> int:
    """Show the latest sample of the machine and the job."""
    found = fields(connection.call("metrics") or {})
    return show(options, found, view.measure_lines(found) or ["no sample yet"])


@subcommand(COUNT)
def runner_log(connection: Connection, options: argparse.Namespace) -> int:
    """Show the last lines of the runner's output."""
    found = fields(connection.call("runner_log", {"lines": options.count}))
    lines = [view.clean(line) for line in items(found.get("lines"))]
    return show(options, found, lines)


@subcommand()
def doctor(connection: Connection, options: argparse.Namespace) -> int:
    """Say what is wrong and what to do about it; exit 1 if anything is."""
    found = problems(fields(connection.call("status")))
    lines = [line for sentence in found for line in view.wrapped(f"* {sentence}", 2)]
    show(options, {"complaints": found}, lines or ["Nothing is wrong."])
    return REFUSED if found else RUNNING


def order(
    connection: Connection,
    options: argparse.Namespace,
    method: str,
    params: dict[str, Any],
) -> int:
    """Have MIGlet do something, and say whether it will."""
    found = fields(connection.call(method, params))
    rest = {name: found[name] for name in found if name != "accepted"}
    if not found.get("accepted"):
        raise Failed(f"{method} was refused: {view.clean(rest)}", REFUSED)
    return show(options, found, [f"{method}: accepted {view.clean(rest)}".rstrip()])


def show(
    options: argparse.Namespace,
    found: Any,
    lines: list[str],
    indent: int | None = 2,
) -> int:
    """Print `found` for scripts or `lines` for people."""
    if options.json:
        print(json.dumps(found, indent=indent), flush=True)
        return RUNNING
    width = os.get_terminal_size(1).columns if os.isatty(1) else 0
    for line in lines:
        print(view.fit(line, width), flush=True)
    return RUNNING


def parser(names: Collection[str] = SUBCOMMANDS.keys()) -> argparse.ArgumentParser:
    """The command line, with these subcommands."""
    top = argparse.ArgumentParser(
        "miglet-ctl", description="Ask a running MIGlet.", formatter_class=formatter
    )
    top.add_argument("--version", action="version", version=f"miglet {__version__}")
    top.set_defaults(socket=os.environ.get("MIGLET_SOCKET") or SOCKET, json=False)
    add_general(top)
    subparsers = top.add_subparsers(
        prog="miglet-ctl", dest="subcommand", required=True, metavar="COMMAND"
    )
    for name in names:
        run, arguments = SUBCOMMANDS[name]
        about = run.__doc__
        each = subparsers.add_parser(
            name, help=about, description=about, formatter_class=formatter
        )
        add_general(each)
        for flag, settings in arguments.items():
            each.add_argument(flag, **settings)
    return top


def formatter(prog: str) -> argparse.HelpFormatter:
    """With a width: to look for the terminal's, argparse imports all of shutil."""
    return argparse.HelpFormatter(prog, width=view.WIDTH)


def add_general(parser: argparse.ArgumentParser) -> None:
    """What may stand before the subcommand as well as after it."""
    absent = argparse.SUPPRESS
    where = f"the control socket; else MIGLET_SOCKET, else {SOCKET}"
    parser.add_argument("--socket", default=absent, metavar="PATH", help=where)
    parser.add_argument(
        "--json", action="store_true", default=absent, help="show it as JSON"
    )


def parse(words: list[str]) -> argparse.Namespace:
    """What the command line says.

    argparse learns only of the subcommand that is named: a tenth of a call's time is
    saved. For help, and where none is named, it learns of all.
    """
    named = {word: None for word in words if word in SUBCOMMANDS}
    wants_help = any(word.startswith(("-h", "--h")) for word in words)
    return parser(SUBCOMMANDS if wants_help else named or SUBCOMMANDS).parse_args(words)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its result is the exit status."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        run, _ = SUBCOMMANDS[options.subcommand]
        with Connection(options.socket) as connection:
            return run(connection, options)
    except Failed as failed:
        print(f"miglet-ctl: {failed}", file=sys.stderr)
        return failed.status
    except BrokenPipeError:
        # ``| head`` has seen enough; nor is there anybody to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return RUNNING
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
