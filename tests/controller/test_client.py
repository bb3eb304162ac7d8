"""The client's table of answers, every row of it, and what it sends."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import responses

from miglet import __version__
from miglet.controller.answers import TABLE, Call, Outcome, outcome
from miglet.controller.client import Client
from miglet.errors import (
    BadAnswer,
    BadRegistration,
    ControllerError,
    ControllerUnreachable,
    CredentialUnusable,
    Refused,
    Unauthenticated,
)
from miglet.http.transport import Answer
from miglet.redaction import forget_secrets, redact

BASE = "http://controller.example/mig"
SECRET = "the-controllers-own-token"
TRACE = "0af7651916cd43dd8448eb211c80319c"
EVENT = {"id": "e-1", "type": "VMStarted", "trace_id": TRACE, "sequence": 1}
TOKEN = {
    "registration_token": "AAAREGISTRATIONTOKEN",
    "expires_at": "2026-01-15T10:30:00Z",
    "runner_url": "https://github.com/octo",
    "runner_group": "default",
    "labels": ["self-hosted", "linux"],
}
REMOVAL = {"removal_token": "AAAREMOVALTOKEN", "expires_at": "2026-01-15T10:30:00Z"}
NO_COMMANDS = {"commands": [], "vm_id": "vm-1"}

#: How each call is made, and an answer that it takes.
CALLS = {
    Call.REGISTRATION_TOKEN: (lambda c: c.registration_token({}, TRACE), TOKEN),
    Call.REMOVAL_TOKEN: (lambda c: c.removal_token({}, TRACE), REMOVAL),
    Call.EVENT: (lambda c: c.post_event(EVENT), {"acknowledged": True}),
    Call.HEARTBEAT: (lambda c: c.heartbeat({}, TRACE), {}),
    Call.COMMANDS: (lambda c: c.commands(0.2, TRACE), NO_COMMANDS),
}


@pytest.fixture(autouse=True)
def no_secrets():
    yield
    forget_secrets()


@pytest.fixture
def controller():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def settings(tmp_path):
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    auth = SimpleNamespace(
        type="bearer",
        token_path=str(token),
        certificate_path=None,
        key_path=None,
        ca_path=None,
    )
    return SimpleNamespace(endpoint=BASE, auth=auth, timeout=5.0, proxy=None)


@pytest.fixture
def client(settings):
    client = Client(settings, "vm-1")
    yield client
    client.close()


def answers(
    controller, call, status, body="", vm="vm-1", headers=None, content_type="text/x"
):
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    url = re.compile(re.escape(f"{BASE}/api/v1/vms/{vm}/{call.path}") + r"(\?.*)?$")
    controller.add(
        call.method,
        url,
        body=body,
        status=status,
        headers=headers or {},
        content_type=content_type,
    )


def made(call, client):
    return CALLS[call][0](client)


# ---- the table -----------------------------------------------------------------

LATER = (ControllerUnreachable, True)
DENIED = (Unauthenticated, True)
REFUSED = (Refused, False)
REDIRECTED = (BadAnswer, True)
TOKEN_ROW = {
    **dict.fromkeys((300, 301, 302, 303, 307, 308), REDIRECTED),
    **dict.fromkeys((400, 403, 404, 405, 409, 410, 413, 422, 451), REFUSED),
    401: DENIED,
    **dict.fromkeys((408, 429, 500, 501, 502, 503, 504, 599, 777), LATER),
}
CONTACT_ROW = {
    **TOKEN_ROW,
    **dict.fromkeys((400, 404, 405, 409, 410, 413, 422, 451), LATER),
    403: DENIED,
}
ERROR_TABLE = {
    Call.REGISTRATION_TOKEN: TOKEN_ROW,
    Call.REMOVAL_TOKEN: {k: v for k, v in TOKEN_ROW.items() if k != 404},
    Call.EVENT: {**TOKEN_ROW, 409: LATER},
    Call.HEARTBEAT: CONTACT_ROW,
    Call.COMMANDS: CONTACT_ROW,
}
BODIES = ["", "{}", '{"title": "No", "status": 1}', "<html>no</html>", b"\xff\x00"]


@pytest.mark.parametrize(
    "body", BODIES, ids=["empty", "json", "problem", "html", "raw"]
)
@pytest.mark.parametrize(
    ("call", "status"),
    [(call, status) for call, row in ERROR_TABLE.items() for status in row],
)
def test_each_status_is_the_error_of_its_row(controller, client, call, status, body):
    answers(controller, call, status, body)
    kind, transient = ERROR_TABLE[call][status]
    with pytest.raises(ControllerError) as caught:
        made(call, client)
    assert type(caught.value) is kind
    assert caught.value.transient is transient
    target = f"{call.method} {BASE}/api/v1/vms/vm-1/{call.path}"
    assert str(caught.value).startswith(f"{target} failed: ")
    assert str(status) in str(caught.value)
    assert len(controller.calls) == (2 if status == 401 else 1)


@pytest.mark.parametrize("call", Call)
@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_each_2xx_with_the_contracts_body_is_taken(controller, client, call, status):
    answers(controller, call, status, CALLS[call][1])
    made(call, client)
    assert len(controller.calls) == 1


def test_the_table_has_a_row_for_each_call_and_an_outcome_for_each_status():
    assert set(TABLE) == set(Call)
    for call in Call:
        for status in range(100, 1000):
            assert isinstance(outcome(call, Answer(status, {}, b"")), Outcome)


@pytest.mark.parametrize("call", Call)
def test_not_modified_is_no_answer(controller, client, call):
    answers(controller, call, 304)
    with pytest.raises(BadAnswer, match="304 Not Modified"):
        made(call, client)


@pytest.mark.parametrize("status", [401, 408, 409, 429, 500, 503, 302])
def test_no_event_is_rejected_for_what_is_not_its_fault(status):
    assert outcome(Call.EVENT, Answer(status, {}, b"")) is not Outcome.REFUSED


@pytest.mark.parametrize("call", Call)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("<html>please log in</html>", "application/json"),
        (" \r\n<!DOCTYPE html>", "text/plain"),
        (b"\xef\xbb\xbf<html>", "application/octet-stream"),
        ("please log in", "text/html; charset=utf-8"),
        ('{"acknowledged": true}', "Text/HTML"),
    ],
)
def test_a_web_page_is_not_an_answer_of_the_controller(
    controller, client, call, body, kind
):
    answers(controller, call, 200, body, content_type=kind)
    with pytest.raises(BadAnswer, match="not an answer of the controller: 200 OK"):
        made(call, client)


@pytest.mark.parametrize("call", [Call.EVENT, Call.HEARTBEAT])
def test_an_empty_answer_is_no_web_page_whatever_its_type(controller, client, call):
    answers(controller, call, 200, "", content_type="text/html")
    made(call, client)


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


# ---- events --------------------------------------------------------------------


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


# ---- heartbeats ----------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 202, 299])
@pytest.mark.parametrize("body", ["", "OK", "[]", {"acknowledged": False}])
def test_a_2xx_accepts_a_heartbeat(controller, client, status, body):
    answers(controller, Call.HEARTBEAT, status, body)
    assert client.heartbeat({"vm_id": "vm-1"}, TRACE) is None
    assert json.loads(controller.calls[0].request.body) == {"vm_id": "vm-1"}


# ---- tokens --------------------------------------------------------------------


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
    ("name", "value", "told"),
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
    controller, client, name, value, told
):
    answers(controller, Call.REGISTRATION_TOKEN, 200, {**TOKEN, name: value})
    with pytest.raises(BadRegistration, match=told) as caught:
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


def test_a_removal_tokens_missing_field_is_named(controller, client):
    answers(controller, Call.REMOVAL_TOKEN, 200, {"expires_at": None})
    with pytest.raises(BadAnswer, match="removal_token: missing"):
        client.removal_token({}, TRACE)


def test_a_controller_without_removal_tokens_says_404(controller, client):
    answers(controller, Call.REMOVAL_TOKEN, 404)
    assert client.removal_token({}, TRACE) is None


def test_tokens_are_known_to_the_redaction_and_in_no_repr(controller, client):
    answers(controller, Call.REGISTRATION_TOKEN, 200, TOKEN)
    answers(controller, Call.REMOVAL_TOKEN, 200, REMOVAL)
    seen = (client.registration_token({}, TRACE), client.removal_token({}, TRACE))
    assert "AAAREGISTRATIONTOKEN" not in repr(seen)
    assert "AAAREMOVALTOKEN" not in repr(seen)
    said = redact(f"AAAREGISTRATIONTOKEN AAAREMOVALTOKEN {SECRET}")
    assert not re.search("AAA|controllers", said)


# ---- commands ------------------------------------------------------------------

ODD = [{"id": "c-1", "type": "Drain"}, 7, None, "x", [], {}]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"commands": [], "vm_id": "vm-1"}, []),
        (200, {"commands": None, "vm_id": "vm-1"}, []),
        (200, {"commands": None}, []),
        (200, {"commands": [], "vm_id": None, "more": 1}, []),
        (200, {"commands": ODD, "vm_id": "vm-1"}, ODD),
        (200, ODD, ODD),
        (200, "[]", []),
        (200, {}, []),
        (200, "", []),
        (204, "", []),
    ],
)
def test_commands_come_as_they_are(controller, client, status, body, expected):
    answers(controller, Call.COMMANDS, status, body)
    assert client.commands(0.2, TRACE) == expected


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


@pytest.mark.parametrize(("wait", "asked"), [(25.0, "25"), (0.25, "0.25"), (0.0, "0")])
def test_the_long_polls_time_is_asked_for(controller, client, wait, asked):
    answers(controller, Call.COMMANDS, 200, NO_COMMANDS)
    client.commands(wait, TRACE)
    assert controller.calls[0].request.url.endswith(f"/commands?wait={asked}")


# ---- what is sent --------------------------------------------------------------


@pytest.mark.parametrize("call", Call)
def test_each_request_says_who_and_in_which_trace(controller, client, call):
    answers(controller, call, 200, CALLS[call][1])
    made(call, client)
    made(call, client)
    first, second = (seen.request.headers for seen in controller.calls)
    assert first["User-Agent"] == f"miglet/{__version__}"
    assert first["Accept-Encoding"] == "identity"
    assert first["Authorization"] == f"Bearer {SECRET}"
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", first["traceparent"])
    assert first["traceparent"] != second["traceparent"]
    assert first.get("Idempotency-Key") == ("e-1" if call is Call.EVENT else None)


@pytest.mark.parametrize("trace", [None, "", "x", "0" * 32, "../etc", "a\r\nX-Evil: 1"])
def test_an_unusable_trace_is_replaced_by_a_new_one(controller, client, trace):
    answers(controller, Call.HEARTBEAT, 200)
    client.heartbeat({}, trace)
    sent = controller.calls[0].request.headers["traceparent"]
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", sent)
    assert "0" * 32 not in sent


def test_a_machines_name_cannot_leave_its_place_in_the_path(controller, settings):
    client = Client(settings, "../vm 1?x#/ü")
    answers(controller, Call.HEARTBEAT, 200, vm="..%2Fvm%201%3Fx%23%2F%C3%BC")
    client.heartbeat({}, TRACE)


def test_a_slash_at_the_endpoints_end_does_not_matter(controller, settings):
    settings.endpoint += "/"
    answers(controller, Call.HEARTBEAT, 200)
    Client(settings, "vm-1").heartbeat({}, TRACE)


# ---- Retry-After ---------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        ("Thu, 15 Jan 2026 10:30:20 GMT", 20.0),
        ("-5", 1.0),
        ("1000000000", 300.0),
        ("soon", None),
    ],
)
def test_what_retry_after_asks_comes_with_the_error(
    controller, client, status, value, expected
):
    headers = {"Retry-After": value, "Date": "Thu, 15 Jan 2026 10:30:00 GMT"}
    answers(controller, Call.EVENT, status, headers=headers)
    with pytest.raises(ControllerUnreachable) as caught:
        client.post_event(EVENT)
    assert caught.value.retry_after == expected


# ---- the credential's second chance --------------------------------------------


def test_a_401_makes_the_credential_be_read_again(controller, client, settings):
    answers(controller, Call.HEARTBEAT, 200)
    client.heartbeat({}, TRACE)
    controller.reset()
    controller.add("POST", re.compile(".*"), status=401)
    controller.add("POST", re.compile(".*"), status=200)
    with open(settings.auth.token_path, "w") as file:
        file.write("another-token-of-ours")
    client.heartbeat({}, TRACE)
    assert [seen.request.headers["Authorization"] for seen in controller.calls] == [
        "Bearer another-token-of-ours"
    ] * 2


def test_a_second_401_is_not_answered_by_a_third_request(controller, client):
    answers(controller, Call.EVENT, 401)
    with pytest.raises(Unauthenticated, match="401 Unauthorized") as caught:
        client.post_event(EVENT)
    assert caught.value.category == "infrastructure"
    assert len(controller.calls) == 2


def test_without_a_token_nothing_is_sent(controller, settings):
    settings.auth.token_path += ".missing"
    with pytest.raises(CredentialUnusable, match="token.missing: No such file"):
        Client(settings, "vm-1").heartbeat({}, TRACE)
    assert len(controller.calls) == 0


def test_authentication_may_be_off(controller, settings):
    settings.auth = SimpleNamespace(type="none", ca_path=None)
    answers(controller, Call.HEARTBEAT, 200)
    Client(settings, "vm-1").heartbeat({}, TRACE)
    assert "Authorization" not in controller.calls[0].request.headers


# ---- redirects, secrets, clocks ------------------------------------------------


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://user:password@evil.example/x", "redirect to evil.example not"),
        ("/elsewhere", "redirect to another path not"),
        ("http://[", "redirect to an unreadable address not"),
        ("", "redirect to another path not"),
    ],
)
def test_a_redirect_is_told_and_not_followed(controller, client, location, told):
    answers(controller, Call.EVENT, 307, headers={"Location": location})
    with pytest.raises(BadAnswer, match=told) as caught:
        client.post_event(EVENT)
    assert "password" not in str(caught.value)
    assert len(controller.calls) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
def test_a_controller_that_repeats_our_secret_does_not_spread_it(
    controller, client, status
):
    answers(controller, Call.EVENT, status, f"not you, {SECRET}! " * 100)
    with pytest.raises(ControllerError) as caught:
        client.post_event(EVENT)
    assert SECRET not in str(caught.value) + repr(vars(caught.value))


def test_each_answers_date_tells_the_clocks_offset(controller, client):
    assert client.clock_offset_seconds is None
    headers = {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
    answers(controller, Call.HEARTBEAT, 500, headers=headers)
    with pytest.raises(ControllerUnreachable):
        client.heartbeat({}, TRACE)
    assert client.clock_offset_seconds < -1e9


# ---- changed settings ----------------------------------------------------------


def changed(settings, **values):
    return SimpleNamespace(**{**vars(settings), **values})


def test_changed_settings_are_used_from_the_next_call_on(controller, client, settings):
    client.apply(changed(settings, endpoint="http://other.example"))
    controller.add("POST", "http://other.example/api/v1/vms/vm-1/heartbeat")
    client.heartbeat({}, TRACE)
    client.apply(changed(settings, auth=SimpleNamespace(type="none")))
    answers(controller, Call.HEARTBEAT, 200)
    client.heartbeat({}, TRACE)
    assert "Authorization" not in controller.calls[1].request.headers
