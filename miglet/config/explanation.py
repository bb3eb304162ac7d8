"""Every effective value, where it came from and what it overrode, secrets masked.

The rows are fit for JSON: the child that loads the configuration hands them to the
arbiter, which shows them to ``miglet-ctl`` and hands them back for an update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from miglet.config.load import Loaded, Origin
from miglet.config.schema import KEYS, TEXTS, Key, masked, value_text

HEADINGS = ("KEY", "VALUE", "SOURCE", "OVERRODE")


def explanation(loaded: Loaded) -> list[dict[str, Any]]:
    """One row a key: ``key``, ``value``, ``source``, ``overrode``.

    Values are as the file would have them (durations and sizes as text); ``overrode``
    lists ``source`` and ``value`` of lower layers, the nearest first.
    """
    flat = loaded.settings.flat()
    return [
        {
            "key": name,
            "value": written(key, flat[name]),
            "source": loaded.origins[name].source,
            "overrode": [
                {"source": source, "value": value}
                for source, value in loaded.origins[name].overrides
            ],
        }
        for name, key in KEYS.items()
    ]


def origins_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Origin]:
    """The origins that went into `rows`, also after a way through JSON."""
    return {
        row["key"]: Origin(
            row["source"],
            tuple((each["source"], each["value"]) for each in row["overrode"]),
        )
        for row in rows
    }


def written(key: Key, value: Any) -> Any:
    """`value` in the form that a file would have it in, masked if it is secret."""
    if key.kind in TEXTS and not isinstance(value, bool):
        return TEXTS[key.kind](value)
    return masked(key, value) if isinstance(value, str) else value


def explain(loaded: Loaded) -> str:
    """The table that ``miglet config`` prints: one line a key, ends with a newline."""
    lines = [HEADINGS, *map(line_of, explanation(loaded))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    return "".join(aligned(line, widths) + "\n" for line in lines)


def line_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """`row` as four texts."""
    overrode = "; ".join(
        f"{each['value']} ({each['source']})" for each in row["overrode"]
    )
    key = KEYS[row["key"]]
    value = row["value"]
    shown = value if isinstance(value, str) else value_text(key, value)
    return key.name, shown, row["source"], overrode


def aligned(line: tuple[str, ...], widths: list[int]) -> str:
    """`line` in columns; the last one is as wide as it likes."""
    padded = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
    return "  ".join([*padded, line[-1]]).rstrip()
