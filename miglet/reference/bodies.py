"""Reading what clients sent: bodies, path and query, each checked before use.

Nothing that a client sent reaches another module before it went through here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

from miglet.controller import contract
from miglet.formats import strict_json
from miglet.reference.problems import Problem

IDENTIFIER = re.compile(r"[!-.0-~]{1,128}")

#: The longest time for which a request may ask to be held, in seconds.
LONGEST_WAIT_SECONDS = 60.0

#: The largest body that is read at all.
MOST_BODY_BYTES = 1024 * 1024

#: How many mistakes of one body are told.
MOST_MISTAKES = 10

VALIDATORS = {
    name: Draft7Validator(contract.schema(name))
    for name in contract.SCHEMAS
    if name.endswith("-request") or name in ("event", "heartbeat")
}
COMMANDS = {
    name: Draft7Validator(contract.schema(f"command-{name}"))
    for name in contract.COMMANDS
}


async def read_json(request: web.Request, most_bytes: int = MOST_BODY_BYTES) -> Any:
    """The body as JSON; a Problem if it is none (NaN and the like are none)."""
    body = await request.read()
    if len(body) > most_bytes:
        raise Problem(413, f"the body is larger than {most_bytes} bytes")
    try:
        return strict_json(body)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from error


def check(body: Any, schema: str) -> None:
    """A Problem that names every field of `body` that is not as in `schema`."""
    _check(VALIDATORS[schema], body, f"the body is not a valid {schema}")


def command_type(name: str) -> str:
    """The wire name of a command, written with or without case and underscores."""
    plain = name.replace("_", "").lower()
    for known in contract.COMMANDS:
        if known.lower() == plain:
            return known
    raise Problem(422, f"no command {name!r}; there are {', '.join(contract.COMMANDS)}")


def check_parameters(command: str, parameters: Any) -> None:
    """A Problem if `parameters` are not those of `command` (its wire name)."""
    _check(COMMANDS[command], parameters, f"not the parameters of {command}")


def machine_id(request: web.Request) -> str:
    """The machine that the path names."""
    name = request.match_info["vm_id"]
    if not IDENTIFIER.fullmatch(name):
        raise Problem(
            400, "vm_id is 1 to 128 printable ASCII characters without space or slash"
        )
    return name


def waiting_time(request: web.Request) -> float:
    """Seconds for which the client wants to be held, clamped; 0 if it does not say."""
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise Problem(400, f"wait is a number of seconds, not {text!r}")
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def position(request: web.Request) -> int:
    """The place in the order of arrival after which the client wants to read on."""
    text = request.query.get("after", "0")
    if not re.fullmatch("[0-9]{1,18}", text):
        raise Problem(400, f"after is a whole number from 0, not {text!r}")
    return int(text)


def _check(validator: Draft7Validator, body: Any, detail: str) -> None:
    mistakes = list(_mistakes(validator.iter_errors(body)))
    if mistakes:
        first = f"{mistakes[0]['field'] or 'the whole'}: {mistakes[0]['reason']}"
        raise Problem(422, f"{detail}: {first}", mistakes[:MOST_MISTAKES])


def _mistakes(errors: Iterable[ValidationError]) -> Iterable[dict[str, str]]:
    for error in errors:
        field = ".".join(map(str, error.absolute_path))
        yield {"field": field, "reason": error.message[:300]}
