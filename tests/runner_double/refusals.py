"""How the service refuses: the lines on stderr, and how often it is asked again.

A 404 is not asked again; everything else is tried three times, 1 to 5 seconds apart.
"""

from __future__ import annotations

import json
import uuid

from tests.runner_double import registry
from tests.runner_double.host import Exit, Host

#: outcome: status in .NET's words, the number, the reason phrase, the body's message.
STATUSES = {
    "401": ("Unauthorized", "401 (Unauthorized)", "Bad credentials"),
    "403": ("Forbidden", "403 (Forbidden)", "Resource not accessible by integration"),
    "404": ("NotFound", "404 (Not Found)", "Not Found"),
    "422": (
        "UnprocessableEntity",
        "422 (Unprocessable Entity)",
        "Runner is currently running a job and cannot be deleted.",
    ),
    "500": ("InternalServerError", "500 (Internal Server Error)", "Server Error"),
    "503": ("ServiceUnavailable", "503 (Service Unavailable)", "Unavailable"),
}
NO_NAME = "Name or service not known (api.github.com:443)"
ATTEMPTS = 3


def token_outcome(tokens: dict[str, str], token: str) -> str:
    """What the plan says of this token; `*` stands for all others."""
    return tokens.get(token, tokens.get("*", "ok"))


def print_refusal(host: Host, status: str, request: str) -> None:
    """The two lines of one refused call: the status, and the body."""
    words, _, message = STATUSES[status]
    identity = str(uuid.uuid4()).upper()
    host.terminal.error(
        f"Http response code: {words} from '{request}' (Request Id: {identity})"
    )
    body = {
        "message": message,
        "documentation_url": "https://docs.github.com/rest",
        "status": status,
    }
    host.terminal.error(json.dumps(body, separators=(",", ":")))


def attempts_of(status: str) -> int:
    return 1 if status in ("404", "422") else ATTEMPTS


def ask_in_vain(host: Host, status: str, request: str) -> str:
    """All attempts of one refused request; the final message."""
    for attempt in range(attempts_of(status)):
        if attempt:
            host.rest(2.0)
        print_refusal(host, status, request)
    return f"Response status code does not indicate success: {STATUSES[status][1]}."


def refuse(host: Host, outcome: str, url: str) -> None:
    """Exit with code 1 if `outcome` is a refusal of the token exchange."""
    if outcome == "network":
        host.rest(2.0 * (ATTEMPTS - 1))
        host.terminal.error(NO_NAME)
        raise Exit(1)
    if outcome in STATUSES:
        registry.note(host.root, "refused", why=outcome)
        host.terminal.error(ask_in_vain(host, outcome, f"POST {url}"))
        raise Exit(1)
