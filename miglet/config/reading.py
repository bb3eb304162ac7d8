"""YAML text to a table of entries, with the line of each, and nothing cleverer.

Every scalar stays text, so that ``off`` and ``0123`` mean what they say; aliases,
tags and deep nesting are refused: a configuration needs none, an attack does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from miglet.errors import MigletError

#: libyaml's parser where PyYAML was built with it: ten times as fast.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Settings are three levels deep.
DEEPEST = 16

#: What libyaml says since 0.2.6, which looks farther ahead than the event we are at.
TOO_DEEP = "exceeded maximum nesting depth"

NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Unreadable(MigletError):
    """The text is not a document that settings can be taken from."""

    category = "misconfig"


class Entry(NamedTuple):
    """One ``key: value``; the node is text, None, a list of nodes, or a table."""

    key: str
    node: Any
    #: From 1; 0 where the source has no lines.
    line: int = 0


class Table(NamedTuple):
    """A mapping as it was written: in order, and with its duplicates."""

    entries: list[Entry]


def table_of(text: str) -> Table:
    """The one mapping in the YAML document `text`; raises Unreadable."""
    try:
        text.encode("utf-8")
        return only_table(iter(yaml.parse(text, Loader=Loader)))
    # The pure Python parser lets a ValueError or OverflowError of int() and chr() out.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise Unreadable(complaint(error)) from None


def complaint(error: Exception) -> str:
    """Why and where YAML could not be read, on one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it has characters that YAML forbids"
    place = f" at {position(mark)}" if mark else ""
    if problem == TOO_DEEP:
        return f"nested more than {DEEPEST} deep{place}"
    return f"not valid YAML{place}: {problem}"


def position(mark: Any) -> str:
    """`mark` as an editor counts, from 1."""
    return f"line {mark.line + 1}, column {mark.column + 1}"


def only_table(events: Iterator[yaml.Event]) -> Table:
    """The document's mapping; an empty document is an empty one."""
    nodes = []
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            nodes.append(node_of(next(events), events, 0))
    if len(nodes) > 1:
        raise Unreadable("more than one YAML document; expected one")
    node = nodes[0] if nodes else None
    if node is None:
        return Table([])
    if not isinstance(node, Table):
        raise Unreadable(f"expected a mapping of settings, found {kind(node)}")
    return node


def kind(node: Any) -> str:
    """What `node` is, in words."""
    return "a list" if isinstance(node, list) else "text"


def node_of(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Any:
    """The node that begins with `event`; takes its other events from `events`."""
    refuse_cleverness(event, depth)
    if isinstance(event, yaml.ScalarEvent):
        plain_null = event.style in (None, "") and event.value in NULLS
        return None if plain_null else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        return list(members(events, depth + 1))
    return Table(list(pairs(events, depth + 1)))


def refuse_cleverness(event: Any, depth: int) -> None:
    """Raises Unreadable for an alias, a tag or too deep a nesting."""
    where = position(event.start_mark)
    if isinstance(event, yaml.AliasEvent):
        raise Unreadable(f"an alias (*{event.anchor}) at {where}; write the value out")
    if event.tag is not None:
        raise Unreadable(f"a tag ({event.tag}) at {where}; settings need none")
    if depth > DEEPEST:
        raise Unreadable(f"nested more than {DEEPEST} deep at {where}")


def members(events: Iterator[yaml.Event], depth: int) -> Iterator[Any]:
    """The nodes of a sequence."""
    for event in events:
        if isinstance(event, yaml.SequenceEndEvent):
            return
        yield node_of(event, events, depth)


def pairs(events: Iterator[yaml.Event], depth: int) -> Iterator[Entry]:
    """The pairs of a mapping."""
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            return
        key = node_of(event, events, depth)
        if not isinstance(key, (str, type(None))):
            where = position(event.start_mark)
            raise Unreadable(f"a key that is not text at {where}")
        mark: Any = event.start_mark
        yield Entry(key or "", node_of(next(events), events, depth), mark.line + 1)
