"""The conversation of ``miglet-ctl`` with a running MIGlet.

The rule that holds here: it ends, with an answer or with one clear sentence on what
to do, however the other side behaves. Only the standard library is imported.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

from miglet.ctl.view import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: MIGlet answers in milliseconds; after so many seconds it will not.
ANSWER_SECONDS = 5.0

#: More than MIGlet ever sends.
ANSWER_BYTES = 2 * 1048576

#: How connecting fails where no MIGlet runs.
NOBODY_LISTENS = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)

#: The error code of a right that is missing.
NOT_PERMITTED = -32001

RUNNING, REFUSED, NOT_RUNNING, UNKNOWN = 0, 1, 3, 4

PERMISSION_HINT = "use sudo, or to only look on join the group miglet"


class Failed(Exception):
    """Ends the command with `status`, the message on stderr."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """A conversation with MIGlet: a JSON-RPC document a line, each way."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._received = b""
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise no_connection(path, error) from None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *raised: object) -> None:
        self._socket.close()

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """The result of `method`; raises Failed when there is none."""
        self.send(method, params or {})
        deadline = time.monotonic() + ANSWER_SECONDS
        while "method" in (message := self.receive(deadline)):
            continue  # news for a subscriber
        if "error" in message:
            raise refusal(message["error"])
        if "result" not in message:
            raise Failed("that was no answer of MIGlet's", UNKNOWN)
        return message["result"]

    def send(self, method: str, params: dict[str, Any]) -> None:
        """Ask; whether it was heard shows when the answer is read."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # what was said before the door closed can still be read
        except OSError as error:
            raise Failed(f"MIGlet does not listen: {error}", UNKNOWN) from None

    def notices(self) -> Iterator[dict[str, Any]]:
        """The notifications of a subscription, for as long as MIGlet runs."""
        while True:
            message = self.receive(None)
            if message.get("method") == "changed":
                yield fields(message.get("params"))

    def receive(self, deadline: float | None) -> dict[str, Any]:
        """The next message, before monotonic time `deadline`."""
        while b"\n" not in self._received:
            self._received += self._arrived(deadline)
            if len(self._received) > ANSWER_BYTES:
                raise Failed("the answer has no end", UNKNOWN)
        line, _, self._received = self._received.partition(b"\n")
        try:
            return fields(json.loads(line))
        except (ValueError, RecursionError):
            raise Failed("the answer is not JSON, so not MIGlet's", UNKNOWN) from None

    def _arrived(self, deadline: float | None) -> bytes:
        if deadline is not None:
            deadline = max(deadline - time.monotonic(), 0.001)
        self._socket.settimeout(deadline)
        try:
            arrived = self._socket.recv(65536)
        except TimeoutError:
            message = f"MIGlet did not answer within {ANSWER_SECONDS:g} s"
            raise Failed(f"{message}; see `journalctl -u miglet`", UNKNOWN) from None
        except ConnectionResetError:
            arrived = b""
        if not arrived:
            raise Failed("MIGlet has closed the connection", UNKNOWN)
        return arrived


def no_connection(path: str, error: OSError) -> Failed:
    """What to tell when nobody can be asked."""
    if isinstance(error, NOBODY_LISTENS):
        message = f"MIGlet is not running: nobody listens at {path}"
        hint = "try `systemctl status miglet` and `journalctl -u miglet`"
        return Failed(f"{message}; {hint}", NOT_RUNNING)
    if isinstance(error, PermissionError):
        return Failed(f"no access to {path}; {PERMISSION_HINT}", UNKNOWN)
    return Failed(f"{path}: {error.strerror or error}", UNKNOWN)


def fields(message: Any) -> dict[str, Any]:
    """`message`, which must be a JSON object. Raises Failed."""
    if not isinstance(message, dict):
        raise Failed("the answer is not what MIGlet answers", UNKNOWN)
    return message


def refusal(error: Any) -> Failed:
    """What to tell when MIGlet answered with `error`."""
    message = clean(fields(error).get("message"))
    if error.get("code") == NOT_PERMITTED:
        return Failed(f"{message}; {PERMISSION_HINT}", UNKNOWN)
    return Failed(message, REFUSED)


def items(found: Any) -> list[Any]:
    """`found`, which must be a list. Raises Failed."""
    if not isinstance(found, list):
        raise Failed("the answer is not what MIGlet answers", UNKNOWN)
    return found
