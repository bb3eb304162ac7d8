"""Where settings come from: one small function a source, each giving a layer.

A layer holds what its source says, not yet parsed, and the faults met while it was
read: a source that cannot be used never keeps the others from being checked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from miglet.config.schema import (
    ATTRIBUTE_NAMES,
    ATTRIBUTE_PREFIX,
    ENVIRONMENT_NAMES,
    ENVIRONMENT_PREFIX,
    KEYS,
    SECTIONS,
    suggestion,
)
from miglet.errors import Fault, MigletError

#: Variables that mean something to MIGlet but are no settings.
RESERVED = frozenset(
    {
        "MIGLET_CLOUD",
        "MIGLET_CONFIG",
        "MIGLET_DMI_ROOT",
        "MIGLET_FAILPOINTS",
        "MIGLET_JOB_DIRECTORY",
        "MIGLET_SOCKET",
    }
)

#: How the names of such variables end that point to a cloud's metadata server.
RESERVED_ENDING = "_METADATA_ENDPOINT"

#: The attribute whose text is a whole YAML document.
DOCUMENT_ATTRIBUTE = "miglet-config"

UPDATE = "UpdateConfig"


@dataclass(frozen=True)
class Layer:
    """What one source says: raw values by dotted key, and what is wrong with it."""

    name: str
    values: Mapping[str, Value] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def over(self, lower: Layer) -> Layer:
        """Both layers as one, this one's values first."""
        values = {**lower.values, **self.values}
        return Layer(self.name, values, self.faults + lower.faults)


@dataclass(frozen=True)
class Layers:
    """All sources, the highest priority first; defaults come below the last."""

    update: Layer = Layer(UPDATE)
    command_line: Layer = Layer("command line")
    metadata: Layer = Layer("metadata")
    environment: Layer = Layer("environment")
    file: Layer = Layer("file")
    #: What the machine is known as (its ``vm_id``) when no other source says so.
    machine: Layer = Layer("machine")

    def __iter__(self) -> Iterator[Layer]:
        yield self.update
        yield self.command_line
        yield self.metadata
        yield self.environment
        yield self.file
        yield self.machine

    @property
    def faults(self) -> list[Fault]:
        """What is wrong with the sources themselves."""
        return [fault for layer in self for fault in layer.faults]


def document_layer(name: str, text: str) -> Layer:
    """The settings in a YAML document; `name` is its source in faults."""
    try:
        table = table_of(text)
    except Unreadable as error:
        return unusable(name, str(error))
    return entries_layer(name, table)


def overlay_layer(name: str, overlay: object) -> Layer:
    """The settings in a JSON object, with nested or dotted keys."""
    if not isinstance(overlay, Mapping):
        return unusable(name, "expected an object of settings")
    return entries_layer(name, overlay)


def entries_layer(name: str, mapping: Any) -> Layer:
    """The settings in a mapping, whatever it was read from."""
    flattening = Flattening(name)
    flattening.take(entries_of(mapping))
    return Layer(name, flattening.values, tuple(flattening.faults))


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """The ``MIGLET_*`` variables; every other variable is none of our business."""
    ours = {
        name: text
        for name, text in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX)
        and name not in RESERVED
        and not name.endswith(RESERVED_ENDING)
    }
    return named_layer("environment", ours, ENVIRONMENT_NAMES)


def attributes_layer(name: str, attributes: Mapping[str, str]) -> Layer:
    """The ``miglet-*`` attributes of a machine; they go before ``miglet-config``.

    Attributes of other names are ignored; ``_`` and capitals are taken for ``-`` and
    small letters, because not every cloud allows all of them.
    """
    usual = {key.lower().replace("_", "-"): text for key, text in attributes.items()}
    document = usual.pop(DOCUMENT_ATTRIBUTE, "")
    ours = {
        key: text for key, text in usual.items() if key.startswith(ATTRIBUTE_PREFIX)
    }
    single = named_layer(name, ours, ATTRIBUTE_NAMES)
    return single.over(document_layer(f"{name} {DOCUMENT_ATTRIBUTE}", document))


def named_layer(name: str, texts: Mapping[str, str], known: Mapping[str, str]) -> Layer:
    """The settings in `texts`, whose names `known` maps to keys."""
    values = {
        known[each]: Value(text, f"{name} {each}")
        for each, text in texts.items()
        if each in known
    }
    unknown = (each for each in texts if each not in known)
    return Layer(
        name, values, tuple(unknown_name(name, each, known) for each in unknown)
    )


def unknown_name(source: str, name: str, known: Iterable[str]) -> Fault:
    """The fault of a variable or attribute that sets nothing."""
    key = name[len(ENVIRONMENT_PREFIX) :].lower()
    reason = "is not a known setting"
    return Fault(shown(key), f"{source} {shown(name)}", reason, suggestion(name, known))


def command_line_layer(assignments: Iterable[str]) -> Layer:
    """The ``--set key=value`` options; the last of a key counts."""
    values, faults = {}, []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        source = f"command line --set {shown(key)}"
        if not equals:
            faults.append(Fault("", source, "expected key=value"))
        elif key not in KEYS:
            hint = suggestion(key, KEYS)
            faults.append(Fault(shown(key), source, "is not a known setting", hint))
        else:
            values[key] = Value(text, source)
    return Layer("command line", values, tuple(faults))


def unusable(name: str, reason: str) -> Layer:
    """A layer without settings, because its source cannot be used at all."""
    return Layer(name, {}, (Fault("", name, reason),))


DEFAULT_FILE = "/etc/miglet/miglet.yaml"

#: The variable that names another file.
FILE_VARIABLE = "MIGLET_CONFIG"

LARGEST_BYTES = 1024 * 1024


def layers_of(
    environ: Mapping[str, str],
    assignments: Iterable[str] = (),
    file: str | None = None,
    metadata: Layer | None = None,
    machine: Layer | None = None,
) -> Layers:
    """Every source of a start, read; nothing is raised, faults stay in the layers.

    `file` is that of ``--config``; without it ``MIGLET_CONFIG`` and then
    ``/etc/miglet/miglet.yaml`` are taken.
    """
    named = file or environ.get(FILE_VARIABLE)
    return Layers(
        command_line=command_line_layer(assignments),
        metadata=metadata or Layer("metadata"),
        environment=environment_layer(environ),
        file=file_layer(named) if named else default_file_layer(DEFAULT_FILE),
        machine=machine or Layer("machine"),
    )


def default_file_layer(path: str) -> Layer:
    """The file in the usual place; an empty layer where there is none."""
    return file_layer(path) if os.path.lexists(path) else Layer(path)


def file_layer(path: str) -> Layer:
    """The settings in the file at `path`; it must be there and readable."""
    try:
        return document_layer(path, text_of(path))
    except OSError as error:
        return unusable(path, f"cannot be read: {error.strerror or error}")
    except (Unreadable, ValueError) as error:
        return unusable(path, str(error))


def text_of(path: str) -> str:
    """The text of the regular file at `path`; raises OSError or Unreadable."""
    # Non-blocking, so that a FIFO in the place of the file delays no boot.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise Unreadable("not a regular file")
        content = stream.read(LARGEST_BYTES + 1)
    return decoded(content)


def decoded(content: bytes) -> str:
    """`content` as text; raises Unreadable if it is too long or not UTF-8."""
    if len(content) > LARGEST_BYTES:
        raise Unreadable(f"larger than {LARGEST_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {error.start + 1}") from None


#: Looking for the nearest known name is slow; nobody reads more hints than these.
MOST_HINTS = 50

#: How much of an unknown key is repeated.
SHOWN_LENGTH = 80


class Value(NamedTuple):
    """What one source says of one key, as it was written."""

    raw: Any
    #: E.g. ``/etc/miglet/miglet.yaml:12``.
    source: str


class Flattening:
    """The settings and the faults of one document, gathered entry by entry."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.values: dict[str, Value] = {}
        self.faults: list[Fault] = []
        self._seen: dict[str, str] = {}

    def take(self, entries: list[Entry], prefix: str = "") -> None:
        """Gather `entries`, found in the section that `prefix` names."""
        for entry in entries:
            name = prefix + entry.key
            source = f"{self.source}:{entry.line}" if entry.line else self.source
            if name not in KEYS and name not in SECTIONS:
                self._refuse_unknown(name, source)
            elif name in self._seen:
                first = self._seen[name]
                self._refuse(name, source, f"is there twice; the first is {first}")
            else:
                self._seen[name] = source
                self._take_known(name, entry.node, source)

    def _take_known(self, name: str, node: Any, source: str) -> None:
        if name in KEYS:
            self.values[name] = Value(node, source)
        elif isinstance(node, (Table, Mapping)):
            self.take(entries_of(node), name + ".")
        elif node is not None:
            reason = "is a section; expected a mapping of settings below it"
            self._refuse(name, source, reason)

    def _refuse_unknown(self, name: str, source: str) -> None:
        enough = len(self.faults) >= MOST_HINTS
        hint = "" if enough else suggestion(name, [*KEYS, *SECTIONS])
        self._refuse(shown(name), source, "is not a known setting", hint)

    def _refuse(self, name: str, source: str, reason: str, hint: str = "") -> None:
        self.faults.append(Fault(name, source, reason, hint))


def entries_of(node: Table | Mapping[Any, Any]) -> list[Entry]:
    """The entries of a table, or of a mapping that came as JSON."""
    if isinstance(node, Table):
        return node.entries
    return [Entry(str(key), value) for key, value in node.items()]


def shown(name: str) -> str:
    """An unknown key, fit for a message: printable, of bounded length, never empty."""
    cut = name[:SHOWN_LENGTH] + "…" if len(name) > SHOWN_LENGTH else name
    return cut if cut and cut.isprintable() else ascii(cut)


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
        refuse_unsupported(yaml.parse(text, Loader=Loader))
        node = plain(yaml.compose(text, Loader=Loader))
    # The pure Python parser lets a ValueError or OverflowError of int() and chr() out.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise Unreadable(yaml_problem(error)) from None
    if node is None:
        return Table([])
    if not isinstance(node, Table):
        kind = "a list" if isinstance(node, list) else "text"
        raise Unreadable(f"expected a mapping of settings, found {kind}")
    return node


def yaml_problem(error: Exception) -> str:
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


# Before any node is made: `yaml.compose` recurses, and with libyaml 0.2.5 (Debian 12),
# which does not limit the depth, overflows the stack. To read events does not recurse.
def refuse_unsupported(events: Iterable[Any]) -> None:
    """Raise Unreadable for an alias, a tag, a second document or too deep a nesting."""
    depth = documents = 0
    for event in events:
        where = position(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            raise Unreadable(
                f"an alias (*{event.anchor}) at {where}; write the value out"
            )
        if getattr(event, "tag", None) is not None:
            raise Unreadable(f"a tag ({event.tag}) at {where}; settings need none")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise Unreadable(f"nested more than {DEEPEST} deep at {where}")
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise Unreadable("more than one YAML document; expected one")


def plain(node: yaml.Node | None) -> Any:
    """Text, None, a list or a Table, as it was written."""
    if isinstance(node, yaml.MappingNode):
        return Table([entry(key, value) for key, value in node.value])
    if isinstance(node, yaml.SequenceNode):
        return [plain(each) for each in node.value]
    if isinstance(node, yaml.ScalarNode):
        is_null = node.style in (None, "") and node.value in NULLS
        return None if is_null else node.value
    return None


def entry(key: yaml.Node, value: yaml.Node) -> Entry:
    """One pair of a mapping; raises Unreadable for a key that is not text."""
    name = plain(key)
    if not isinstance(name, (str, type(None))):
        raise Unreadable(f"a key that is not text at {position(key.start_mark)}")
    return Entry(name or "", plain(value), key.start_mark.line + 1)
