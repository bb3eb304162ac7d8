"""Events out of last-resort files and serial logs."""

from __future__ import annotations

import json

import pytest

from miglet.reference.event_import import MAX_LINE_CHARACTERS, find_events
from tests.reference_samples import event


def line(body: object) -> str:
    return f"MIGLET-EVENT {json.dumps(body)}\n"


def test_events_are_ordered_by_machine_and_sequence_and_each_is_there_once():
    first, second = event(vm="vm-1", sequence=1), event(vm="vm-1", sequence=2)
    other = event(vm="vm-0", sequence=9)
    found = find_events([line(second), line(first), line(other), line(second)])
    assert found.events == [other, first, second]
    assert found.problems == []


def test_a_serial_log_has_prefixes_other_lines_and_carriage_returns():
    body = event(vm="vm-1", sequence=1)
    found = find_events(
        [
            "[    1.23] systemd[1]: Started something\r\n",
            f"Nov 28 10:00:00 vm-1 kernel: {line(body).rstrip()}\r\n",
            f"\x1b[0m{line(event(vm='vm-1', sequence=2)).rstrip()} [ 9.9] audit: x\n",
        ]
    )
    assert [each["sequence"] for each in found.events] == [1, 2]
    assert found.events[0] == body


@pytest.mark.parametrize(
    "text",
    [
        "MIGLET-EVENT",
        "MIGLET-EVENT \n",
        "MIGLET-EVENT {",
        "MIGLET-EVENT [1, 2]",
        'MIGLET-EVENT {"id": 7, "vm_id": "v", "type": "Error", "sequence": 1}',
        'MIGLET-EVENT {"id": "a", "vm_id": "v", "type": "Error", "sequence": true}',
        'MIGLET-EVENT {"id": "a", "vm_id": "v", "type": "E", "sequence": 1, "x": NaN}',
        'MIGLET-EVENT {"id": "\\ud800", "vm_id": "v", "type": "E", "sequence": 1}',
        'MIGLET-EVENT {"id": "a", "id": "b", "vm_id": "v", "type": "E", "sequence": 1}',
        "MIGLET-EVENT " + "[" * 100_000,
        "MIGLET-EVENT " + "x" * (MAX_LINE_CHARACTERS + 1),
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_found(text: str):
    found = find_events(["noise\n", text, line(event(sequence=3))])
    assert [each["sequence"] for each in found.events] == [3]
    if text != "MIGLET-EVENT":
        assert [each.split(":")[0] for each in found.problems] == ["line 2"]
