"""The client's table of answers, every row of it, and what it sends."""

from __future__ import annotations

import json
import re
from itertools import product
from types import SimpleNamespace

import pytest

from miglet import __version__
from miglet.controller.answers import Call
from miglet.controller.client import Client
from miglet.errors import (
    BadAnswer,
    ControllerError,
    ControllerUnreachable,
    CredentialUnusable,
    Refused,
    Unauthenticated,
)
from miglet.redaction import redact
from tests.cases import check_each
from tests.controller.calls import (
    BASE,
    CALLS,
    EVENT,
    NO_COMMANDS,
    REMOVAL,
    SECRET,
    TOKEN,
    TRACE,
    answers,
    made,
)

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


@pytest.mark.parametrize("call", ERROR_TABLE)
def test_each_status_is_the_error_of_its_row(controller, client, call):
    def is_the_error_of_its_row(case):
        status, body = case
        controller.reset()
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

    check_each([*product(ERROR_TABLE[call], BODIES)], is_the_error_of_its_row)


@pytest.mark.parametrize("call", Call)
@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_each_2xx_with_the_contracts_body_is_taken(controller, client, call, status):
    answers(controller, call, status, CALLS[call][1])
    made(call, client)
    assert len(controller.calls) == 1


@pytest.mark.parametrize("call", Call)
def test_not_modified_is_no_answer(controller, client, call):
    answers(controller, call, 304)
    with pytest.raises(BadAnswer, match="304 Not Modified"):
        made(call, client)


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


# ---- events --------------------------------------------------------------------


# ---- heartbeats ----------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 202, 299])
@pytest.mark.parametrize("body", ["", "OK", "[]", {"acknowledged": False}])
def test_a_2xx_accepts_a_heartbeat(controller, client, status, body):
    answers(controller, Call.HEARTBEAT, status, body)
    assert client.heartbeat({"vm_id": "vm-1"}, TRACE) is None
    assert json.loads(controller.calls[0].request.body) == {"vm_id": "vm-1"}


# ---- tokens --------------------------------------------------------------------


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
    ("location", "expected"),
    [
        ("https://user:password@evil.example/x", "redirect to evil.example not"),
        ("/elsewhere", "redirect to another path not"),
        ("http://[", "redirect to an unreadable address not"),
        ("", "redirect to another path not"),
    ],
)
def test_a_redirect_is_reported_and_not_followed(
    controller, client, location, expected
):
    answers(controller, Call.EVENT, 307, headers={"Location": location})
    with pytest.raises(BadAnswer, match=expected) as caught:
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
