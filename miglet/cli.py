"""``miglet``: starts the daemon or a subcommand, prints its error, returns its status.

Before the settings are known, a start imports next to nothing: the child that loads
them and the parent's own imports then take their time side by side.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from miglet.errors import MigletError, Misconfigured
from miglet.formats import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    sources = parse_plain_run(words)
    try:
        if sources is None:
            return load_function("miglet.arguments", "run_subcommand")(words)
        return load_function("miglet.agent.start", "start")(sources)
    except Misconfigured as error:
        for fault in error.faults:
            print(one_line(f"miglet: {fault}"), file=sys.stderr)
        return error.exit_status
    except MigletError as error:
        hint = f"; {error.hint}" if error.hint else ""
        print(one_line(f"miglet: {error}{hint}"), file=sys.stderr)
        return error.exit_status


def parse_plain_run(words: Sequence[str]) -> dict[str, object] | None:
    """The sources of ``[run] [--config FILE] [--set KEY=VALUE]...``; None for others.

    So the unit starts the daemon, which takes 1.1 MB less without argparse. What is not
    exactly so, mistakes included, is for `miglet.arguments`.
    """
    file, assignments, saw_run = None, [], False
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        if option in ("--config", "--set"):
            # A missing value is for argparse to report.
            value = value if equals else next(left, "-")
            if value.startswith("-"):
                return None
            if option == "--set":
                assignments.append(value)
            else:
                file = value
        elif word == "run" and not saw_run:
            saw_run = True
        else:
            return None
    return {"file": file, "assignments": assignments}


def load_function(module: str, function: str) -> Callable[..., int]:
    """Import a module that only one subcommand needs; a function of it."""
    return getattr(importlib.import_module(module), function)
