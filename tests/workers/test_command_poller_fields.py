"""What a controller may hand out as a command, and what becomes of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.messages.codec import encode
from miglet.messages.facts import PARAMETERS_DEPTH
from miglet.workers.command_poller import (
    NAME_LIMIT,
    PARAMETERS_LIMIT,
    parse_command,
)

GOOD = {"id": "c-1", "type": "Drain", "created_at": "2026-01-15T10:30:00Z"}


def nested(depth: int) -> dict:
    return {"deeper": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ("Drain", "not an object"),
        ({}, "id is not a text"),
        ({**GOOD, "id": 7}, "id is not a text"),
        ({**GOOD, "id": ""}, "id is not a text"),
        ({**GOOD, "id": "x" * (NAME_LIMIT + 1)}, "id is not a text"),
        ({**GOOD, "id": "a\nb"}, "id is not a text"),
        ({**GOOD, "type": None}, "type is not a text"),
        ({**GOOD, "parameters": []}, "parameters is not an object"),
        ({**GOOD, "parameters": "x"}, "parameters is not an object"),
        ({**GOOD, "parameters": nested(PARAMETERS_DEPTH + 1)}, "nested deeper"),
        ({**GOOD, "parameters": {"x": "y" * PARAMETERS_LIMIT}}, "larger than"),
        ({**GOOD, "expires_at": "soon"}, "expires_at is not a time"),
        ({**GOOD, "expires_at": "2026-01-15T10:30:00"}, "expires_at is not a time"),
        ({**GOOD, "expires_at": 1e99}, "expires_at is not a time"),
    ],
)
def test_a_malformed_command_is_refused_with_its_reason(raw, reason):
    assert any(reason in fault for fault in parse_command(raw).faults)


def test_a_well_formed_command_has_no_fault():
    fact = parse_command(
        {**GOOD, "parameters": None, "expires_at": "2026-01-15T10:30:00Z"}
    )
    assert fact.faults == []
    assert fact.expires_at == 1768473000.0


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda each: st.lists(each) | st.dictionaries(st.text(max_size=9), each),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "parameters", "expires_at"]), JSON))
def test_whatever_comes_fits_on_a_queue(raw):
    encode(parse_command(raw))
