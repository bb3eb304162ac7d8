"""Whatever a process sends, what is decoded raises nowhere in the arbiter."""

from __future__ import annotations

import json
import types
import typing
from typing import Annotated, Any, Literal, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.errors import BadMessage
from miglet.formats import DEEPEST
from miglet.lifecycle.table import TABLE, step
from miglet.lifecycle.vm import Moment, Vm
from miglet.messages import codec, facts
from miglet.messages.codec import (
    AtLeast,
    Depth,
    Fact,
    Keys,
    Length,
    OneOf,
    Range,
    Word,
    decode,
    encode,
)
from tests.histories import (
    ACKNOWLEDGED,
    LAUNCHED,
    LISTENING,
    PREPARED,
    RUN,
    SEEN,
    fresh,
    live,
)

NOW = Moment(1000.0, 50.0)

#: Every fact that may come out of another process.
SENT = [
    kind
    for kind in codec.MESSAGES.values()
    if issubclass(kind, Fact) and kind.__module__ == facts.__name__
]

#: What is worth a try wherever a text is allowed.
TEXTS = st.sampled_from([RUN, "vm-1-b00t", "VMStarted", "Error", "a\nREADY=1", ""])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner),
    max_leaves=4,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Every kind of value that conforms to a type, its limits among them."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is Any:
        return JSON
    if origin is Annotated:
        return limited(*arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(values(arguments[0]) if arguments else JSON, max_size=2)
    if origin is dict:
        inner = values(arguments[1]) if arguments else JSON
        return st.dictionaries(TEXTS, inner, max_size=2)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXTS,
        bool: st.booleans(),
        int: st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63) + 1]),
        float: st.sampled_from([0, 0.5, -1e308, 1e308, 2**63 - 1]),
        type(None): st.none(),
    }
    return simple[origin]


def limited(base: Any, *limits: Any) -> st.SearchStrategy[Any]:
    (limit,) = limits
    if isinstance(limit, Range):
        return st.sampled_from([limit.least, limit.most])
    if isinstance(limit, OneOf):
        return st.sampled_from(limit.texts)
    if isinstance(limit, Length):
        return TEXTS
    if isinstance(limit, Depth):
        return values(base).filter(limit.holds)
    if isinstance(limit, Word):
        return st.sampled_from(["!", "x" * limit.most])
    if isinstance(limit, AtLeast):
        (item,) = typing.get_args(base)
        return st.lists(values(item), min_size=limit.items, max_size=2)
    assert isinstance(limit, Keys)
    hints = codec._hints(limit.kind)
    return st.fixed_dictionaries(
        {key: values(hints[key]) for key in limit.required},
        optional={key: values(hints[key]) for key in hints.keys() - limit.required},
    )


FIELDS = {
    kind: st.fixed_dictionaries(
        {name: values(hint) for name, hint in codec._hints(kind).items()}
    )
    for kind in SENT
}


@st.composite
def sent_facts(draw: st.DrawFn) -> Fact:
    """A fact that has come through a queue."""
    kind = draw(st.sampled_from(SENT))
    fields = draw(FIELDS[kind])
    decoded = decode(json.dumps([kind.__name__, fields]).encode())
    assert isinstance(decoded, Fact)
    return decoded


def after(*history: Fact) -> Vm:
    return live(fresh(), *history)[0]


BUSY = (PREPARED, ACKNOWLEDGED, LAUNCHED, LISTENING, SEEN)
REFUSED = facts.RegistrationFailed("permanent", "code", "message", "hint", 77)

#: A machine in each state.
MACHINES = {
    vm.state: vm
    for vm in (
        after(),
        after(PREPARED),
        after(*BUSY[:3]),
        after(*BUSY[:4]),
        after(*BUSY),
        after(*BUSY, facts.SignalReceived("SIGTERM")),
        after(*BUSY, *[facts.SignalReceived("SIGTERM")] * 2),
        after(PREPARED, ACKNOWLEDGED, REFUSED),
    )
}


def test_there_is_a_machine_in_each_state():
    assert MACHINES.keys() == TABLE.keys()


@pytest.mark.parametrize("state", TABLE)
@given(sent_facts())
def test_no_fact_raises_in_any_state(state, fact):
    vm, effects = step(MACHINES[state], fact, NOW)
    for effect in effects:
        repr(effect)
    json.dumps(vm.to_json())


@given(sent_facts())
def test_a_fact_survives_its_way_through_a_queue(fact):
    assert decode(encode(fact)) == fact


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_bad_message(encoded):
    try:
        decode(encoded)
    except BadMessage:
        return


@given(st.sampled_from(SENT), JSON)
def test_no_fields_raise_anything_but_bad_message(kind, fields):
    try:
        decode(json.dumps([kind.__name__, fields]).encode())
    except BadMessage:
        return


@given(sent_facts().filter(vars), st.data())
def test_a_field_of_another_type_is_refused_or_harmless(fact, data):
    """One field of a good fact is replaced by anything."""
    fields = dict(vars(fact))
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(JSON)
    try:
        other = decode(json.dumps([type(fact).__name__, fields]).encode())
    except BadMessage:
        return
    assert isinstance(other, Fact)
    for state in TABLE:
        step(MACHINES[state], other, NOW)


@pytest.mark.parametrize("levels", [DEEPEST, 900, 20_000])
def test_a_message_that_is_too_deep_to_be_handled_is_refused(levels):
    deep = "[" * levels + "]" * levels
    text = f'["MachineSampled",{{"vm_health":{{"a":{deep}}}}}]'
    with pytest.raises(BadMessage, match="nested deeper|recursion"):
        decode(text.encode())
