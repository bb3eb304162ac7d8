"""The state machine as a drawing (SVG), made from its table.

The states stand below one another. An arc on the right leads down to a later state, one
on the left leads back; both have the colour of the state that they leave.
"""

from __future__ import annotations

from collections.abc import Iterator

from miglet.lifecycle.table import leaves_to
from miglet.lifecycle.vm import State

ROW, TOP = 64, 40
BOX_WIDTH, BOX_HEIGHT = 200, 34
MIDDLE = 300
WIDTH = 640

COLOURS = (
    "#1f77b4",
    "#d95f02",
    "#2ca02c",
    "#9467bd",
    "#8c564b",
    "#c2185b",
    "#455a64",
    "#b71c1c",
)


def drawing() -> str:
    """The whole drawing."""
    states = list(State)
    height = TOP + ROW * len(states)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" font-family="monospace" font-size="13">',
        *arcs(states),
        *boxes(states),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def boxes(states: list[State]) -> Iterator[str]:
    """One box for each state."""
    for row, state in enumerate(states):
        x, y = MIDDLE - BOX_WIDTH // 2, height_of(row) - BOX_HEIGHT // 2
        yield (
            f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"'
            f' fill="white" stroke="{COLOURS[row]}" stroke-width="2"/>'
        )
        yield (
            f'<text x="{MIDDLE}" y="{height_of(row) + 5}" text-anchor="middle">'
            f"{state.value}</text>"
        )


def arcs(states: list[State]) -> Iterator[str]:
    """One arc for each pair of a state and one that it leads to."""
    for row, state in enumerate(states):
        for to in sorted(leaves_to(state) - {state}, key=states.index):
            yield from arc(row, states.index(to), COLOURS[row])


def arc(start: int, end: int, colour: str) -> Iterator[str]:
    """An arc between two rows; the arrow's head is at its end."""
    side = 1 if end > start else -1
    distance = abs(end - start)
    edge = MIDDLE + side * BOX_WIDTH // 2
    # Arcs leave in the lower part of a box and arrive in the upper part.
    leaves, arrives = height_of(start) + 2 + distance, height_of(end) - 2 - distance
    bulge = edge + side * (14 + 34 * distance)
    yield (
        f'<path d="M {edge} {leaves} C {bulge} {leaves}, {bulge} {arrives},'
        f' {edge + side * 6} {arrives}" fill="none" stroke="{colour}"'
        ' stroke-width="1.4"/>'
    )
    yield (f'<path d="M {edge} {arrives} l {side * 9} -4 l 0 8 z" fill="{colour}"/>')


def height_of(row: int) -> int:
    """The middle of a row."""
    return TOP + ROW * row
