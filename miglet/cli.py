"""``miglet``: the one place that parses the command line, prints, and exits.

Before the settings are known, `run` imports next to nothing: the child that loads
them and the parent's own imports then take their time side by side.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from miglet import __version__
from miglet.errors import MigletError, Misconfigured
from miglet.formats import one_line

#: Every subcommand by its name, filled as the functions below are defined.
SUBCOMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {}


def subcommand(
    function: Callable[[argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """Register a function as the subcommand of its name."""
    SUBCOMMANDS[function.__name__.replace("_", "-")] = function
    return function


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status."""
    parsed = parser().parse_args(arguments)
    try:
        return SUBCOMMANDS[parsed.subcommand](parsed)
    except Misconfigured as error:
        for fault in error.faults:
            print(one_line(f"miglet: {fault}"), file=sys.stderr)
        return error.exit_status
    except MigletError as error:
        hint = f"; {error.hint}" if error.hint else ""
        print(one_line(f"miglet: {error}{hint}"), file=sys.stderr)
        return error.exit_status


def parser() -> argparse.ArgumentParser:
    """The command line; every subcommand's help is its docstring."""
    root = argparse.ArgumentParser(
        prog="miglet",
        description="Supervise one ephemeral GitHub Actions runner on this machine.",
    )
    root.add_argument("--version", action="version", version=f"miglet {__version__}")
    add_sources(root)
    root.set_defaults(subcommand="run", json=False)
    subparsers = root.add_subparsers(metavar="{run,check,config,install-runner}")
    for name, function in SUBCOMMANDS.items():
        each = subparsers.add_parser(name, help=function.__doc__)
        add_sources(each, argparse.SUPPRESS)
        each.set_defaults(subcommand=name)
        if name in ("check", "config"):
            each.add_argument("--json", action="store_true", help="for scripts")
        if name == "install-runner":
            each.add_argument(
                "archive", metavar="ARCHIVE", help="the release (.tar.gz)"
            )
            each.add_argument("--sha256", metavar="SUM", help="what it must be")
    return root


def add_sources(each: argparse.ArgumentParser, default: object = None) -> None:
    """Where the configuration comes from; before or after the subcommand."""
    each.add_argument(
        "--config",
        metavar="FILE",
        default=default,
        help="default: /etc/miglet/miglet.yaml",
    )
    each.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=default,
        help="a setting, above every other source; may be repeated",
    )


def sources_of(parsed: argparse.Namespace) -> dict[str, object]:
    """The arguments of `miglet.config.sources.layers_of`."""
    return {"file": parsed.config, "assignments": parsed.set or []}


def named(module: str, function: str) -> Callable[..., int]:
    """A function of a module that only one subcommand needs."""
    return getattr(importlib.import_module(module), function)


@subcommand
def run(parsed: argparse.Namespace) -> int:
    """Serve in the foreground until the controller, a signal or a fault ends it."""
    return named("miglet.agent.start", "start")(sources_of(parsed))


@subcommand
def check(parsed: argparse.Namespace) -> int:
    """Check configuration and machine, print a table (for image builds)."""
    return named("miglet.bootstrap.check_command", "check")(
        sources_of(parsed), parsed.json
    )


@subcommand
def config(parsed: argparse.Namespace) -> int:
    """Print each effective setting with its source, secrets masked."""
    return named("miglet.bootstrap.check_command", "config")(
        sources_of(parsed), parsed.json
    )


@subcommand
def install_runner(parsed: argparse.Namespace) -> int:
    """Unpack a release of actions/runner so that jobs cannot change it (as root)."""
    install = named("miglet.bootstrap.install_command", "install")
    return install(sources_of(parsed), parsed.archive, parsed.sha256)
