"""What strangers may send as JSON, and what is made of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.control import rpc

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def request_with(params: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + params + b"}"


@given(VALUES | st.floats(allow_nan=False, allow_infinity=False))
def test_ordinary_json_is_taken_as_it_is(value):
    for ascii_only in (True, False):
        params = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert rpc.request_in(request_with(params)).params == value


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"", ""),
        (b"{", ""),
        (b"{} {}", ""),
        (b"{'a': 1}", ""),
        (b"\xef\xbb\xbf{}", ""),
        (b"\x00", ""),
        (b'"\xff"', "'utf-8' codec can't decode byte 0xff in position 1"),
        (nested(rpc.DEEPEST + 2), "nested deeper"),
        (nested(30_000), "nested deeper"),
        (b'{"a":' * 10_000, "nested deeper"),
        (b"9" * 5000, "5000 digits"),
        (b"-" + b"9" * 50, "51 digits"),
        (b"1e999", "too large"),
        (b"-1e999", "too large"),
        (b"0." + b"1" * 5000, "too long"),
        (b"NaN", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b'{"a": 1, "a": 2}', "same key twice"),
        (b'[{"a": {"b": 1, "\\u0062": 2}}]', "same key twice"),
        (b'"\\ud800"', "surrogate"),
        (b'[{"\\udfff": 1}]', "surrogate"),
        (b'"\\udc00\\ud800"', "surrogate"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_bad_json_is_refused_with_the_reason(text, reason):
    with pytest.raises(rpc.RpcError, match=f"not JSON: .*{reason}") as caught:
        rpc.request_in(text)
    assert caught.value.code == rpc.PARSE_ERROR


def test_the_deepest_that_is_allowed_is_allowed():
    assert rpc.request_in(request_with(nested(rpc.DEEPEST))).params
    with pytest.raises(rpc.RpcError, match="nested deeper"):
        rpc.request_in(request_with(nested(rpc.DEEPEST + 1)))


def test_a_pair_of_surrogates_is_one_character():
    request = rpc.request_in(request_with(b'"\\ud83d\\ude00"'))
    assert request.params == "\N{GRINNING FACE}"


@given(
    st.binary(max_size=200)
    | st.text(alphabet='[]{}",:\\u0d8eE+-1.nul ').map(str.encode)
)
def test_any_bytes_are_taken_or_refused(text):
    try:
        request = rpc.request_in(request_with(text))
    except rpc.RpcError:
        return
    assert json.loads(json.dumps(request)) == list(request)


@pytest.mark.parametrize(
    "line, code",
    [
        (b"{", rpc.PARSE_ERROR),
        (b"[]", rpc.INVALID_REQUEST),
        (b'[{"jsonrpc":"2.0","id":1,"method":"status"}]', rpc.INVALID_REQUEST),
        (b"3", rpc.INVALID_REQUEST),
        (b"{}", rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"1.0","id":1,"method":"status"}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":3}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":{},"method":"x"}', rpc.INVALID_REQUEST),
    ],
)
def test_a_bad_request_gets_the_code_of_the_standard(line, code):
    with pytest.raises(rpc.RpcError) as caught:
        rpc.request_in(line)
    assert caught.value.code == code


def test_a_request_without_id_is_a_notification():
    line = b'{"jsonrpc":"2.0","method":"x"%s}'
    assert rpc.request_in(line % b"") == (None, "x", {}, True)
    assert rpc.request_in(line % b',"id":null') == (None, "x", {}, False)


def test_an_answer_that_is_too_large_becomes_an_error():
    line = rpc.reply(7, "x" * rpc.REPLY_BYTES)
    assert json.loads(line)["error"]["code"] == rpc.INTERNAL_ERROR
    assert json.loads(line)["id"] == 7
    assert line.endswith(b"\n") and line.count(b"\n") == 1
