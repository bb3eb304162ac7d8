"""Queue pairs: whole messages, end-of-file, and an arbiter that never waits."""

from __future__ import annotations

import json
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.config.schema import KEYS
from miglet.errors import BadMessage
from miglet.messages.codec import LIMIT, MESSAGES, decode, encode
from miglet.messages.facts import (
    EventDelivered,
    EventRefused,
    JobSampled,
    LivenessPing,
    MachineSampled,
)
from miglet.messages.orders import ProvideRunner, SetLevel, UpdateHeartbeat
from miglet.supervisor import queues
from miglet.supervisor.queues import (
    BACKLOG,
    BUDGET_AT_ONCE,
    BUDGET_PER_SECOND,
    RECEIVE_LIMIT,
    Budget,
    QueueClosed,
)


@pytest.fixture
def pair():
    ours, theirs = queues.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_arrive_whole_and_in_order(pair):
    ours, theirs = pair
    ours.post(SetLevel("debug"))
    ours.post(ProvideRunner("vm-1", spent_tokens=["a"]))
    assert list(theirs.receive()) == [
        SetLevel("debug"),
        ProvideRunner("vm-1", spent_tokens=["a"]),
    ]
    assert list(theirs.receive()) == []


def test_end_of_file_comes_after_the_last_words(pair):
    ours, theirs = pair
    theirs.put(LivenessPing(1.0))
    theirs.close()
    received = ours.receive()
    assert next(received) == LivenessPing(1.0)
    with pytest.raises(QueueClosed):
        next(received)
    with pytest.raises(QueueClosed):
        list(ours.receive())
    with pytest.raises(QueueClosed):
        ours.post(SetLevel("info"))


def test_a_reader_that_does_not_read_never_blocks_the_writer(pair):
    ours, theirs = pair
    big = UpdateHeartbeat({"text": "x" * 60000}, at_once=True)
    with pytest.raises(BadMessage, match="full"):
        for _ in range(BACKLOG + 1000):
            ours.post(big)
    read = 0
    while found := list(theirs.receive(BACKLOG)):
        read += len(found)
        ours.flush()
    assert read >= BACKLOG


def test_a_reader_that_is_busy_finds_only_the_latest_of_what_is_superseded(pair):
    ours, theirs = pair
    padding = "x" * 60000
    for number in range(3 * BACKLOG):
        ours.post(UpdateHeartbeat({"number": number, "text": padding}))
    ours.post(UpdateHeartbeat({"number": "changed", "text": padding}, at_once=True))
    ours.post(SetLevel("info"))
    ours.post(UpdateHeartbeat({"number": "latest", "text": padding}))
    found = []
    while more := list(theirs.receive()):
        found += more
        ours.flush()
    *early, changed, level, latest = found
    assert len(early) < BACKLOG
    assert (changed.content["number"], level) == ("changed", SetLevel("info"))
    assert latest.content["number"] == "latest"


def test_a_message_that_is_too_large_is_refused_by_its_writer(pair):
    with pytest.raises(BadMessage, match="bytes"):
        pair[0].post(UpdateHeartbeat({"text": "x" * LIMIT}))


def test_a_flooding_sender_gets_one_turn_at_a_time(pair):
    ours, theirs = pair
    for _ in range(RECEIVE_LIMIT + 10):
        theirs.put(LivenessPing(0.0))
    assert len(list(ours.receive())) == RECEIVE_LIMIT
    assert len(list(ours.receive())) == 10


def test_a_budget_is_spent_and_refills_with_time():
    now = [0.0]
    budget = Budget(lambda: now[0])
    for _ in range(2):
        budget.spend(int(BUDGET_AT_ONCE))
        with pytest.raises(BadMessage, match="faster than they may"):
            budget.spend(1)
        now[0] += 100 * BUDGET_AT_ONCE / BUDGET_PER_SECOND
    now[0] += 1.0
    for _ in range(3):
        budget.spend(int(BUDGET_PER_SECOND))
        now[0] += 1.0


def test_the_shortest_interval_of_sampling_stays_far_below_the_budget():
    often = 1 / KEYS["metrics.collection_interval"].rules["minimum"]
    assert often * (MachineSampled.cost + JobSampled.cost) < BUDGET_PER_SECOND / 2


def test_what_came_before_nonsense_is_received(pair):
    ours, theirs = pair
    theirs.put(LivenessPing(1.0))
    os.write(theirs.fileno(), b"nonsense")
    received = ours.receive()
    assert next(received) == LivenessPing(1.0)
    with pytest.raises(BadMessage):
        next(received)


def test_the_name_of_a_file_that_is_not_utf8_can_be_reported():
    fact = EventRefused(1, "Error", 400, os.fsdecode(b"/tmp/\xff"))
    assert decode(encode(fact)) == EventRefused(1, "Error", 400, "/tmp/?")


def test_a_number_that_json_does_not_have_is_refused_by_its_writer():
    with pytest.raises(BadMessage):
        encode(JobSampled("r", {"cpu_seconds": float("nan")}))


def test_a_killed_writer_leaves_whole_messages(quick):
    for _ in range(5 if quick else 20):
        ours, theirs = queues.pair()
        pid = os.fork()
        if pid == 0:
            while True:
                theirs.put(JobSampled("r" * 32, {"text": "y" * 5000}))
        theirs.close()
        found = 0
        while found < 50:
            found += len(list(ours.receive()))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with pytest.raises(QueueClosed):
            while True:
                list(ours.receive())
        ours.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"{}",
        b"null",
        b"[1,2]",
        b'["Nobody",{}]',
        b'["LivenessPing",{}]',
        b'["LivenessPing",{"timeout_seconds":"long"}]',
        b'["LivenessPing",{"timeout_seconds":true}]',
        b'["LivenessPing",{"timeout_seconds":1,"more":2}]',
        b'["EventDelivered",{"sequence":1.5,"type":"x"}]',
        b'["JobSampled",{"run_id":"r","usage":[]}]',
        b'["LivenessPing",7]',
        b"\xff\xfe",
        b"[" * 100000,
        b'[["LivenessPing"],{"timeout_seconds":1}]',
        b'["Fact",{}]',
        b'["Order",{}]',
        b'{"Fact":{}}',
        b'["LivenessPing",{"timeout_seconds":Infinity}]',
        b'["LivenessPing",{"timeout_seconds":1e999}]',
        b'["LivenessPing",{"timeout_seconds":86400}]',
        b'["LivenessPing",{"timeout_seconds":-1}]',
        b'["MachineSampled",{"vm_health":{"a":NaN}}]',
        b'["MachineSampled",{"vm_health":{"a":1' + b"0" * 400 + b"}}]",
        b'["MachineSampled",{"vm_health":{"a":"\\ud800"}}]',
        b'["MachineSampled",{"vm_health":{"a":"' + b"x" * 40000 + b'"}}]',
        b'["RunnerListening",{"runner":{},"attempts":1,"duration_seconds":1}]',
        b'["RunnerLaunched",{"runner":{"run_id":"r","name":7}}]',
        b'["TerminationNoticed",{"kind":"k","deadline":Infinity,"source":"s"}]',
        b'["TerminationNoticed",{"kind":"k","deadline":1e300,"source":"s"}]',
        b'["PreflightDone",{"report":[{}],"machine":{}}]',
        b'["SettingsRefused",{"faults":[{"key":"k"}]}]',
        b'["EventDelivered",{"sequence":-1,"type":"x"}]',
        b'["FaultNoted",{"category":"c","code":"c","message":"m","component":"c"}]',
    ],
)
def test_nonsense_is_refused_and_never_half_believed(nonsense):
    with pytest.raises(BadMessage):
        decode(nonsense)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_no_document_is_more_than_refused(document):
    try:
        decode(json.dumps(document).encode())
    except BadMessage:
        return
    raise AssertionError("believed")


def test_what_is_encoded_is_decoded():
    fact = EventDelivered(7, "JobCompleted")
    assert decode(encode(fact)) == fact


def test_every_message_says_what_it_means():
    for kind in MESSAGES.values():
        assert kind.__doc__
        assert not kind.__doc__.startswith(f"{kind.__name__}(")
