"""JSON-RPC 2.0 for untrusted clients: a request is read strictly or refused."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from miglet.errors import MigletError
from miglet.formats import strict_json

#: A request may have so many bytes, an answer so many.
REQUEST_BYTES = 65536
REPLY_BYTES = 1048576

#: Levels of a request; the deepest are commands with settings.
DEEPEST = 32

#: The error codes of JSON-RPC 2.0, section 5.1, and our own.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
BAD_PARAMS = -32602
INTERNAL_ERROR = -32603
NOT_PERMITTED = -32001
BUSY = -32002


class RpcError(MigletError):
    """A request that cannot be granted; `code` is one of those above."""

    category = "user"

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Request(NamedTuple):
    """One call of a method."""

    #: What the answer repeats; None in a notification, which gets no answer.
    id: str | int | None
    method: str
    #: Whatever was passed; methods take an object.
    params: Any
    #: Whether the caller does not want an answer.
    notification: bool = False


def request_in(line: bytes) -> Request:
    """The request in `line`. Raises RpcError."""
    try:
        message = strict_json(line, DEEPEST)
    except ValueError as error:
        raise RpcError(PARSE_ERROR, f"not JSON: {error}") from None
    if isinstance(message, list):
        raise RpcError(INVALID_REQUEST, "no batches: send one request a line")
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'expected an object with "jsonrpc": "2.0"')
    id, method = message.get("id"), message.get("method")
    if isinstance(id, bool) or not isinstance(id, int | str | None):
        raise RpcError(INVALID_REQUEST, "expected an id of text or a whole number")
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "expected the name of a method")
    return Request(id, method, message.get("params", {}), "id" not in message)


def reply(id: str | int | None, result: Any) -> bytes:
    """The line that answers request `id` with `result`, or says it is too large."""
    line = _line({"jsonrpc": "2.0", "id": id, "result": result})
    if len(line) > REPLY_BYTES:
        return failure(id, RpcError(INTERNAL_ERROR, "the answer is too large"))
    return line


def failure(id: str | int | None, error: RpcError) -> bytes:
    """The line that answers request `id` with `error`."""
    failure = {"code": error.code, "message": str(error)}
    return _line({"jsonrpc": "2.0", "id": id, "error": failure})


def notice(method: str, params: dict[str, Any]) -> bytes:
    """The line that tells a subscriber something it did not ask for."""
    return _line({"jsonrpc": "2.0", "method": method, "params": params})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
