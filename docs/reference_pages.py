"""Prints the pages of ``docs/reference`` from the code and the contract.

What can be read there stands nowhere else. ``docs/conf.py`` calls `write`; the pages
are not kept under version control.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import state_diagram

import miglet.bootstrap
from miglet import arguments, errors
from miglet.bootstrap.framework import CHECKS
from miglet.commands import registry  # noqa: F401 - its commands become rows
from miglet.controller import contract
from miglet.controller.answers import TABLE, Call
from miglet.ctl import __main__ as ctl
from miglet.lifecycle.table import COMMANDS
from miglet.messages.events import EVENTS
from miglet.metrics.machine import METRICS
from miglet.metrics.prometheus import AGENT
from miglet.reference import cli as reference

#: Every page by its name, filled as the functions below are defined.
PAGES: dict[str, Callable[[], Iterator[str]]] = {}


def page(function: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    """Register a function as the page of its name."""
    PAGES[function.__name__] = function
    return function


def write(folder: Path) -> None:
    """Write every page and the drawing; what is as it should be is left alone."""
    folder.mkdir(exist_ok=True)
    texts = {f"{name}.rst": "\n".join(lines()) + "\n" for name, lines in PAGES.items()}
    texts["states.svg"] = state_diagram.drawing()
    for name, text in texts.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def title(text: str, line: str = "=") -> Iterator[str]:
    """A heading."""
    yield from ("", text, line * len(text), "")


def table(*header: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A list-table."""
    yield from (".. list-table::", "   :header-rows: 1", "")
    for row in (header, *rows):
        for number, cell in enumerate(row):
            yield f"   {'  -' if number else '* -'} {cell}"
    yield ""


def code(text: object) -> str:
    """Literal text."""
    return f"``{text}``"


def flat(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def summary(subject: Any) -> str:
    """A docstring as one paragraph a line."""
    paragraphs = (inspect.getdoc(subject) or "").split("\n\n")
    return "\n\n".join(map(flat, paragraphs))


def type_of(rules: dict[str, Any]) -> str:
    """What a JSON Schema says of a value, in a few words."""
    if "enum" in rules:
        return " | ".join(code(each) for each in rules["enum"])
    if "anyOf" in rules:
        return " | ".join(map(type_of, rules["anyOf"]))
    kinds = rules.get("type", "any")
    return " | ".join([kinds] if isinstance(kinds, str) else kinds)


def resolved(rules: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The rules with what they refer to in its place."""
    if "$ref" in rules:
        return resolved(definitions[rules["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in rules:
        choices = [resolved(each, definitions) for each in rules["anyOf"]]
        named = {key: value for each in choices for key, value in each.items()}
        return {**named, **rules, "anyOf": choices}
    return rules


def rows_of(
    properties: dict[str, Any], definitions: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, ...]]:
    """Key, type and meaning of each property, those of objects after their object."""
    for key, unresolved in properties.items():
        rules = resolved(unresolved, definitions)
        meaning = rules.get("description", "")
        if "const" in rules:
            meaning += f" Always ``{rules['const']}``."
        elif examples := rules.get("examples", []):
            meaning += f" Known: {', '.join(map(code, examples))}."
        yield code(prefix + key), type_of(rules), meaning.strip()
        yield from rows_of(rules.get("properties", {}), definitions, f"{prefix}{key}.")


@page
def events() -> Iterator[str]:
    """Every event."""
    rules = contract.schema("event")
    definitions = rules["definitions"]
    yield from title("Events")
    yield (
        "What ``POST events`` brings, from"
        " ``miglet/controller/contract/schemas/event.json``. Accept types, keys and"
        " values that you do not know. The causes of a job's end are explained in"
        " :doc:`../troubleshooting`."
    )
    yield from title("The envelope", "-")
    envelope = rows_of(rules["properties"], definitions)
    yield from table("Key", "Type", "Meaning", rows=envelope)
    for name in EVENTS:
        data = definitions[name]
        yield from title(name, "-")
        yield data["description"]
        yield ""
        rows = rows_of(data["properties"], definitions)
        yield from table("Key of ``data``", "Type", "Meaning", rows=rows)


@page
def heartbeat() -> Iterator[str]:
    """The heartbeat."""
    rules = contract.schema("heartbeat")
    yield from title("Heartbeat")
    yield (
        "What ``POST heartbeat`` brings every ``heartbeat.interval`` and at each change"
        " of state, from ``miglet/controller/contract/schemas/heartbeat.json``."
    )
    yield ""
    yield rules["description"]
    yield ""
    rows = rows_of(rules["properties"], rules["definitions"])
    yield from table("Key", "Type", "Meaning", rows=rows)


@page
def commands() -> Iterator[str]:
    """Every command."""
    yield from title("Commands")
    yield (
        "What the controller may order, matched without regard to case and underscores."
        " Each is executed at most once and answered by exactly one"
        " ``CommandCompleted``."
    )
    for row in COMMANDS.values():
        yield from title(row.name, "-")
        yield summary(row.rule)
        states = ", ".join(sorted(code(each.value) for each in row.to))
        if states:
            yield from ("", f"May lead to: {states}.")
        schema = contract.schema(f"command-{row.name}")
        if described := schema.get("description"):
            yield from ("", described)
        properties = schema.get("properties", {})
        yield ""
        if properties:
            yield from table(
                "Parameter",
                "Type",
                "Meaning",
                rows=[
                    (code(key), type_of(rules), rules.get("description", ""))
                    for key, rules in properties.items()
                ],
            )


@page
def answers() -> Iterator[str]:
    """What MIGlet makes of the controller's answers."""
    yield from title("The controller's answers")
    yield "For each call the first row that applies decides."
    for call in Call:
        yield from title(f"{call.method} {call.path}", "-")
        yield from table(
            "Status",
            "Body",
            "MIGlet",
            rows=[
                (
                    str(each.status),
                    each.body.text if each.body else "any",
                    each.consequence,
                )
                for each in TABLE[call]
            ],
        )


@page
def metrics() -> Iterator[str]:
    """Every metric."""
    yield from title("Metrics")
    yield from title("In the heartbeat", "-")
    yield "The keys of ``vm_health``; null is what the kernel does not provide."
    yield ""
    yield from table(
        "Key",
        "Meaning",
        rows=[(code(each.name), flat(each.help)) for each in METRICS.values()],
    )
    yield from title("On the Prometheus page", "-")
    yield "``/metrics``, where ``metrics.listen`` is set. Counters end with ``_total``."
    yield ""
    of_machine = [
        (series, series.help or each.help)
        for each in METRICS.values()
        for series in each.series
    ]
    yield from table(
        "Family",
        "Kind",
        "Labels",
        "Meaning",
        rows=[
            (
                code(series.name),
                series.kind,
                ", ".join(series.labels),
                flat(text),
            )
            for series, text in [*of_machine, *((each, each.help) for each in AGENT)]
        ],
    )


@page
def checks() -> Iterator[str]:
    """Every check of the start."""
    for module in pkgutil.iter_modules(miglet.bootstrap.__path__):
        importlib.import_module(f"miglet.bootstrap.{module.name}")
    yield from title("Checks")
    yield (
        "What ``miglet check`` and each start look at. A check with a time limit merely"
        " warns: the start does not depend on it."
    )
    yield ""
    yield from table(
        "Id",
        "Waited for",
        "Meaning",
        rows=[
            (
                code(name),
                f"{each.seconds:g} s" if each.seconds else "``bootstrap.timeout``",
                flat(inspect.getdoc(each.look) or ""),
            )
            for name, each in CHECKS.items()
        ],
    )


@page
def exit_statuses() -> Iterator[str]:
    """The exit statuses of miglet."""
    text = (Path(__file__).parent / "man" / "miglet.8.rst").read_text()
    section = text.split("EXIT STATUS\n===========\n", 1)[1].split("\nENVIRONMENT\n")[0]
    yield from title("Exit statuses")
    yield section.strip()
    yield ""
    yield f"Their names are in ``{errors.__name__.replace('.', '/')}.py``."


@page
def command_line() -> Iterator[str]:
    """The command lines."""
    yield from title("Command line")
    for program, parser in (
        ("miglet", arguments.parser()),
        ("miglet-ctl", ctl.parser()),
        ("miglet-controller", reference.parser()),
    ):
        yield from title(program, "-")
        yield from ("::", "")
        for line in usage(program, parser).splitlines():
            yield f"    {line}".rstrip()
        yield ""
    yield "The manual pages:"
    yield from ("", ".. toctree::", "   :maxdepth: 1", "")
    yield from (
        "   ../man/miglet.8",
        "   ../man/miglet-ctl.1",
        "   ../man/miglet-controller.1",
    )


def usage(program: str, parser: argparse.ArgumentParser) -> str:
    """The help of a program without the width of this terminal."""
    parser.prog = program
    parser.formatter_class = wide
    return parser.format_help()


def wide(prog: str) -> argparse.HelpFormatter:
    """argparse's formatter at the width of the documents."""
    return argparse.HelpFormatter(prog, width=88)
