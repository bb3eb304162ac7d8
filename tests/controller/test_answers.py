"""What the controller's answers mean, by status and body."""

from __future__ import annotations

import json

import pytest

from miglet.controller.answers import TABLE, Call, Outcome, outcome
from miglet.errors import (
    BadAnswer,
    BadRegistration,
    ControllerUnreachable,
    Refused,
)
from miglet.http.transport import Answer
from tests.controller.calls import (
    EVENT,
    REMOVAL,
    TOKEN,
    TRACE,
    answers,
    made,
)


def test_the_table_has_a_row_for_each_call_and_an_outcome_for_each_status():
    assert set(TABLE) == set(Call)
    for call in Call:
        for status in range(100, 1000):
            assert isinstance(outcome(call, Answer(status, {}, b"")), Outcome)


@pytest.mark.parametrize("status", [401, 408, 409, 429, 500, 503, 302])
def test_no_event_is_rejected_for_what_is_not_its_fault(status):
    assert outcome(Call.EVENT, Answer(status, {}, b"")) is not Outcome.REFUSED


@pytest.mark.parametrize("call", [Call.REGISTRATION_TOKEN, Call.REMOVAL_TOKEN])
@pytest.mark.parametrize(
    "body",
    [
        "null",
        "[]",
        "7",
        '"yes"',
        "true",
        "{",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        b"\xff\xfe{\x00}\x00",
        b"{\xff}",
        "[" * 200_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_not_a_strict_json_object_is_no_answer(controller, client, call, body):
    answers(controller, call, 200, body)
    with pytest.raises(BadAnswer):
        made(call, client)


@pytest.mark.parametrize("type", ["VMStarted", "JobCompleted"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, ""),
        (204, ""),
        (200, " \r\n"),
        (200, {}),
        (200, {"acknowledged": True}),
        (200, {"acknowledged": None}),
        (200, {"acknowledged": "yes"}),
        (202, {"status": "success"}),
        (200, {"status": "pending"}),
        (201, {"id": "e-1"}),
        (200, {"acknowledged": True, "duplicate": True}),
        (200, "null"),
        (200, "true"),
        (200, "[]"),
        (200, "OK"),
        (299, "stored\n"),
        (200, "{"),
        (200, "x" * 1024),
        (200, {"padding": "x" * 2000}),
    ],
)
def test_a_2xx_acknowledges_whatever_its_json_or_short_text_says(
    controller, client, type, status, body
):
    answers(controller, Call.EVENT, status, body)
    assert client.post_event({**EVENT, "type": type}) is True


@pytest.mark.parametrize(
    "body", [{"acknowledged": False}, {"acknowledged": False, "status": "received"}]
)
def test_only_vm_started_can_be_not_acknowledged_yet(controller, client, body):
    answers(controller, Call.EVENT, 200, body)
    assert client.post_event(EVENT) is False
    assert client.post_event({**EVENT, "type": "JobCompleted"}) is True


@pytest.mark.parametrize("body", ["x" * 1025, b"\xff\xfe\x00", "[" * 200_000])
@pytest.mark.parametrize("call", [Call.EVENT, Call.HEARTBEAT])
def test_what_is_neither_json_nor_a_short_text_accepts_nothing(
    controller, client, call, body
):
    answers(controller, call, 200, body)
    with pytest.raises(BadAnswer, match="not an answer of the controller"):
        made(call, client)


@pytest.mark.parametrize("call", [Call.EVENT, Call.HEARTBEAT])
def test_torn_json_accepts_nothing(controller, client, call):
    answers(controller, call, 200, '{"status": 7', content_type="application/json")
    with pytest.raises(BadAnswer, match="not an answer of the controller"):
        made(call, client)


def test_a_409_counts_as_delivered_only_where_it_says_duplicate(controller, client):
    answers(controller, Call.EVENT, 409, {"duplicate": True})
    assert client.post_event(EVENT) is True


@pytest.mark.parametrize(
    "body", ["", "<html>", {"duplicate": False}, {"duplicate": "true"}, {"title": "x"}]
)
def test_another_409_is_repeated(controller, client, body):
    answers(controller, Call.EVENT, 409, body)
    with pytest.raises(ControllerUnreachable, match="409 Conflict"):
        client.post_event(EVENT)


def test_a_refusal_brings_status_and_answer(controller, client):
    answers(controller, Call.EVENT, 422, {"detail": "data.result: unknown"})
    with pytest.raises(Refused, match="422 Unprocessable .*data.result") as caught:
        client.post_event(EVENT)
    assert caught.value.status == 422
    assert json.loads(caught.value.answer) == {"detail": "data.result: unknown"}


def test_a_refusals_answer_is_short_and_on_one_line(controller, client):
    answers(controller, Call.EVENT, 400, "a\x1b[31m\nb\x00" + "x" * 500_000)
    with pytest.raises(Refused) as caught:
        client.post_event(EVENT)
    assert caught.value.answer.startswith("a [31m b")
    assert len(caught.value.answer) <= 1000
    assert len(str(caught.value)) < 300


def test_a_registration_token_has_all_that_a_runner_needs(controller, client):
    answers(controller, Call.REGISTRATION_TOKEN, 200, {**TOKEN, "unknown": [1]})
    token = client.registration_token({"org_id": "o"}, TRACE)
    assert token.token == "AAAREGISTRATIONTOKEN"
    assert token.expires_at == 1768473000.0
    assert token.runner_url == "https://github.com/octo"
    assert (token.runner_group, token.labels) == ("default", ("self-hosted", "linux"))
    assert json.loads(controller.calls[0].request.body) == {"org_id": "o"}


def test_nulls_where_the_controller_has_nothing_to_say(controller, client):
    nulls = dict.fromkeys(("expires_at", "runner_group", "labels"))
    answers(controller, Call.REGISTRATION_TOKEN, 200, {**TOKEN, **nulls})
    token = client.registration_token({}, TRACE)
    assert (token.expires_at, token.runner_group, token.labels) == (None, None, ())


@pytest.mark.parametrize("name", ["expires_at", "runner_group", "labels"])
def test_what_a_token_need_not_bring_may_be_missing(controller, client, name):
    body = {key: value for key, value in TOKEN.items() if key != name}
    answers(controller, Call.REGISTRATION_TOKEN, 200, body)
    client.registration_token({}, TRACE)


@pytest.mark.parametrize(
    "text", [None, "", "0001-01-01T00:00:00Z", "1970-01-01T23:59:59.999Z"]
)
def test_no_time_and_times_before_1970_01_02_mean_no_expiry(controller, client, text):
    answers(controller, Call.REMOVAL_TOKEN, 200, {**REMOVAL, "expires_at": text})
    answers(controller, Call.REGISTRATION_TOKEN, 200, {**TOKEN, "expires_at": text})
    assert client.removal_token({}, TRACE).expires_at is None
    assert client.registration_token({}, TRACE).expires_at is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("labels", ["linux", "a,b"], "label 'a,b' cannot"),
        ("labels", [""], "label '' cannot"),
        ("labels", ["-x"], "label '-x' cannot"),
        ("labels", ["a\0b"], r"label 'a\\x00b' cannot"),
        ("labels", ["x" * 257], "label 'xxx"),
        ("runner_group", "-x", "runner group '-x' cannot"),
        ("runner_group", "a\nb", r"runner group 'a\\nb' cannot"),
    ],
)
def test_labels_and_groups_that_config_sh_misreads_are_named(
    controller, client, name, value, expected
):
    answers(controller, Call.REGISTRATION_TOKEN, 200, {**TOKEN, name: value})
    with pytest.raises(BadRegistration, match=expected) as caught:
        client.registration_token({}, TRACE)
    assert caught.value.category == "permanent"


def test_an_empty_group_is_no_group(controller, client):
    answers(controller, Call.REGISTRATION_TOKEN, 200, {**TOKEN, "runner_group": ""})
    assert client.registration_token({}, TRACE).runner_group is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-01-15T10:30:00Z", 1768473000.0),
        ("2026-01-15t10:30:00.5z", 1768473000.5),
        ("2026-01-15 10:30:00.1234567+00:00", 1768473000.123456),
        ("2026-01-15T02:30:00.000-08:00", 1768473000.0),
    ],
)
def test_times_are_read_in_every_form_of_rfc_3339(controller, client, text, at):
    answers(controller, Call.REMOVAL_TOKEN, 200, {**REMOVAL, "expires_at": text})
    assert client.removal_token({}, TRACE).expires_at == at


MISTYPED = {
    "registration_token": [None, 7, "", [], "two words", "ümlaut", "a\nb"],
    "expires_at": [
        7,
        "soon",
        "2026-01-15",
        "2026-01-15T10:30:00",
        "2026-13-15T10:30:00Z",
        [],
    ],
    "runner_url": [None, 7, "", "https://git hub"],
    "runner_group": [7, ["default"]],
    "labels": ["linux", {}, ["linux", 7], [None]],
}


@pytest.mark.parametrize("name", ["registration_token", "runner_url"])
def test_a_missing_field_is_named(controller, client, name):
    body = {key: value for key, value in TOKEN.items() if key != name}
    answers(controller, Call.REGISTRATION_TOKEN, 200, body)
    with pytest.raises(BadAnswer, match=f"{name}: missing") as caught:
        client.registration_token({}, TRACE)
    assert caught.value.category == "transient"


@pytest.mark.parametrize(
    ("name", "value"), [(name, v) for name, values in MISTYPED.items() for v in values]
)
def test_a_mistyped_field_is_named_and_never_repeated(controller, client, name, value):
    answers(controller, Call.REGISTRATION_TOKEN, 200, {**TOKEN, name: value})
    with pytest.raises(BadAnswer, match=f"registration-token .* {name}: ") as caught:
        client.registration_token({}, TRACE)
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"vm_id": "vm-1"}, "commands"),
        ({"commands": {}, "vm_id": "vm-1"}, "commands"),
        ({"commands": "Drain", "vm_id": "vm-1"}, "commands"),
        ({"commands": [], "vm_id": 7}, "vm_id"),
        ({"commands": [], "vm_id": "vm-2"}, "vm_id"),
        ({"commands": [], "vm_id": ""}, "vm_id"),
    ],
)
def test_an_answer_with_wrong_commands_names_the_field(controller, client, body, field):
    answers(controller, Call.COMMANDS, 200, body)
    with pytest.raises(BadAnswer, match=f"GET .*/commands failed: .*{field}: "):
        client.commands(0.2, TRACE)
