"""The command line of ``miglet``, for all but a plain start of the daemon.

Imported by nothing else, since argparse costs 1.1 MB.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from miglet import __version__
from miglet.cli import load_function

#: Every subcommand by its name, filled as the functions below are defined.
SUBCOMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {}


def subcommand(
    function: Callable[[argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """Register a function as the subcommand of its name."""
    SUBCOMMANDS[function.__name__.replace("_", "-")] = function
    return function


def run_subcommand(words: Sequence[str]) -> int:
    """Parse the words, and run the subcommand; its exit status."""
    parsed = parser().parse_args(words)
    return SUBCOMMANDS[parsed.subcommand](parsed)


def parser() -> argparse.ArgumentParser:
    """The command line; every subcommand's help is its docstring."""
    root = argparse.ArgumentParser(
        prog="miglet",
        description="Supervise one ephemeral GitHub Actions runner on this machine.",
    )
    root.add_argument("--version", action="version", version=f"miglet {__version__}")
    add_sources(root, "before")
    root.set_defaults(subcommand="run", json=False)
    subparsers = root.add_subparsers(metavar="{run,check,config,install-runner}")
    for name, function in SUBCOMMANDS.items():
        each = subparsers.add_parser(name, help=function.__doc__)
        add_sources(each, "after")
        each.set_defaults(subcommand=name)
        if name in ("check", "config"):
            each.add_argument("--json", action="store_true", help="print JSON")
        if name == "install-runner":
            each.add_argument(
                "archive", metavar="ARCHIVE", help="the release (.tar.gz)"
            )
            each.add_argument(
                "--sha256", metavar="SUM", help="expected SHA-256 of the archive"
            )
    return root


def add_sources(target: argparse.ArgumentParser, place: str) -> None:
    """Where the configuration comes from; `place` is before or after the subcommand.

    Each place has its own list: argparse would drop what stands before the subcommand.
    """
    target.add_argument(
        "--config",
        metavar="FILE",
        default=None if place == "before" else argparse.SUPPRESS,
        help="default: /etc/miglet/miglet.yaml",
    )
    target.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        dest=f"set_{place}",
        default=[],
        help="a setting, above every other source; may be repeated",
    )


def sources_of(parsed: argparse.Namespace) -> dict[str, object]:
    """The arguments of `miglet.config.sources.layers_of`."""
    after = getattr(parsed, "set_after", [])
    return {"file": parsed.config, "assignments": [*parsed.set_before, *after]}


@subcommand
def run(parsed: argparse.Namespace) -> int:
    """Serve in the foreground until the controller, a signal or a fault ends it."""
    # For calls that `miglet.cli` does not parse itself, such as abbreviated options.
    return load_function("miglet.agent.start", "start")(sources_of(parsed))


@subcommand
def check(parsed: argparse.Namespace) -> int:
    """Check configuration and machine, print a table (for image builds)."""
    return load_function("miglet.bootstrap.check_command", "check")(
        sources_of(parsed), parsed.json
    )


@subcommand
def config(parsed: argparse.Namespace) -> int:
    """Print each effective setting with its source, secrets masked."""
    return load_function("miglet.bootstrap.check_command", "config")(
        sources_of(parsed), parsed.json
    )


@subcommand
def install_runner(parsed: argparse.Namespace) -> int:
    """Unpack a release of actions/runner so that jobs cannot change it (as root)."""
    install = load_function("miglet.bootstrap.install_command", "install")
    return install(sources_of(parsed), parsed.archive, parsed.sha256)
