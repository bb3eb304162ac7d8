"""Why `config.sh` fails, as tables: what it says, what that means, what to do next.

The runner ends with 1 whatever was wrong and says what it was only in words (config.sh
and ConfigurationManager.cs of actions/runner). The tables come first, then the
functions that read them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum
from typing import NamedTuple

from miglet.formats import one_line
from miglet.redaction import redact
from miglet.runner.installation import REGISTRATION_FILES


class Next(Enum):
    """What to do after an outcome."""

    GO_ON = "go_on"
    NEW_TOKEN = "new_token"
    RETRY = "retry"
    GIVE_UP = "give_up"


class Reason(NamedTuple):
    """A row of the tables: why config.sh failed, and what follows from it."""

    kind: str
    category: str
    next: Next
    hint: str


TOKEN_REFUSED = Reason(
    "token_refused",
    "permanent",
    Next.NEW_TOKEN,
    "GitHub says 404 to an expired token and to a wrong URL alike: check runner_url",
)
UNAUTHORIZED = Reason(
    "unauthorized",
    "permanent",
    Next.NEW_TOKEN,
    "the token is not for this organisation, or its App lacks a permission",
)
RATE_LIMITED = Reason(
    "rate_limited", "infrastructure", Next.RETRY, "GitHub limits the calls: try later"
)
SERVER_ERROR = Reason(
    "server_error", "infrastructure", Next.RETRY, "see https://www.githubstatus.com"
)
BUSY = Reason(
    "runner_busy", "transient", Next.RETRY, "GitHub keeps a runner that has a job"
)
REFUSED = Reason(
    "refused", "permanent", Next.GIVE_UP, "GitHub understood the request and said no"
)
INCOMPLETE = Reason(
    "incomplete",
    "infrastructure",
    Next.RETRY,
    "config.sh claimed success without writing all of its files: is the disk full?",
)
KILLED = Reason(
    "killed", "infrastructure", Next.RETRY, "was the machine out of memory?"
)
TIMED_OUT = Reason(
    "timed_out",
    "infrastructure",
    Next.RETRY,
    "can the machine reach GitHub? github.registration_timeout is the limit",
)
LOST = Reason("lost", "infrastructure", Next.RETRY, "nobody saw how config.sh ended")
UNKNOWN = Reason(
    "unknown", "infrastructure", Next.RETRY, "see the newest _diag/Runner_*.log"
)

#: What config.sh says for sure, whatever the server said before; the first that fits.
SAID = (
    (
        r"already configured\.",
        Reason(
            "already_configured",
            "infrastructure",
            Next.RETRY,
            "an earlier registration is in the way: forget it first",
        ),
    ),
    (
        r"Must not run (interactively )?with sudo",
        Reason(
            "runs_as_root",
            "misconfig",
            Next.GIVE_UP,
            "set runner.user to a user that is not root",
        ),
    ),
    (
        r"Dependencies is missing|dependencies is missing for|Can not find 'ld",
        Reason(
            "missing_dependency",
            "permanent",
            Next.GIVE_UP,
            "run bin/installdependencies.sh when the image is built",
        ),
    ),
    (
        r"Could not find any self-hosted runner group named",
        Reason(
            "group_unknown",
            "misconfig",
            Next.GIVE_UP,
            "create the runner group, or correct github.runner_group",
        ),
    ),
    (
        r"(?m)Invalid configuration provided for |is not supported\.?$",
        Reason(
            "invalid_option",
            "misconfig",
            Next.GIVE_UP,
            "check github.labels, github.runner_group and runner_url",
        ),
    ),
    (
        r"does not support configuring a self-hosted runner with",
        Reason(
            "server_too_old",
            "permanent",
            Next.GIVE_UP,
            "the GitHub Enterprise Server knows no ephemeral runners: upgrade it",
        ),
    ),
    (
        r"clock may be out of sync",
        Reason(
            "clock_skew",
            "infrastructure",
            Next.RETRY,
            "start MIGlet after time-sync.target, and let the image have an NTP client",
        ),
    ),
    (
        r"No space left on device|not enough space on the disk",
        Reason("disk_full", "infrastructure", Next.RETRY, "make room on the disk"),
    ),
    (
        r"Permission denied|Access to the path .{1,4096}? is denied"
        r"|Read-only file system",
        Reason(
            "not_writable",
            "misconfig",
            Next.GIVE_UP,
            "install the runner with `miglet install-runner`, not as the runner's user",
        ),
    ),
    (
        r"(?m)^Uninstall service first",
        Reason(
            "service_installed",
            "misconfig",
            Next.GIVE_UP,
            "the image has the runner as a service: run svc.sh uninstall in it",
        ),
    ),
    (
        r"(?m)^A runner exists with the same name .+\.$",
        Reason(
            "name_taken",
            "infrastructure",
            Next.RETRY,
            "GitHub may not yet have removed the last runner of this name",
        ),
    ),
    (r"is currently running a job and cannot be deleted", BUSY),
)

#: What failed requests say. Only the last counts: config.sh itself retries.
STATUSES = re.compile(
    r"Response status code does not indicate success: (\d{3})"
    r"|Http response code: (\w{1,40}) from '"
)
STATUS_NAMES = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "Conflict": 409,
    "UnprocessableEntity": 422,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "BadGateway": 502,
    "ServiceUnavailable": 503,
    "GatewayTimeout": 504,
}
ANSWERED = {401: UNAUTHORIZED, 403: UNAUTHORIZED, 404: TOKEN_REFUSED, 429: RATE_LIMITED}

#: What is said where no server answered, or too late to matter.
CONNECTION_FAILURES = (
    (
        r"SSL connection could not be established|certificate|UntrustedRoot",
        Reason(
            "tls",
            "infrastructure",
            Next.RETRY,
            "does the image trust the certificate authority, and is its clock right?",
        ),
    ),
    (
        r"(?im)name or service not known|temporar(y|ily) |connection (refused|reset)"
        r"|network is unreachable|no route to host|timed? ?out|HttpClient\.Timeout"
        r"|\([\w.-]+:\d+\)$|error occurred while sending the request|proxy",
        Reason(
            "network",
            "infrastructure",
            Next.RETRY,
            "check DNS, routes, the firewall and the proxy between here and GitHub",
        ),
    ),
    (
        r"(?m)^Exiting\.\.\.\s*$",
        Reason("interrupted", "infrastructure", Next.RETRY, "somebody interrupted it"),
    ),
)

#: Exit codes that a shell gives to what it could not start.
SHELL = {
    126: Reason(
        "not_executable",
        "misconfig",
        Next.GIVE_UP,
        "chmod 755 config.sh and all in bin, and let runner.user reach them",
    ),
    127: Reason(
        "not_found",
        "misconfig",
        Next.GIVE_UP,
        "unpack a whole release of actions/runner into runner.directory",
    ),
}


MESSAGE_CHARACTERS = 500


class Outcome(NamedTuple):
    """How an attempt to register, or to remove the registration, went."""

    kind: str
    #: The wire name of the error category; empty when nothing went wrong.
    category: str
    #: What config.sh said, redacted and printable.
    message: str
    #: What a person can do about it.
    hint: str
    next: Next

    @property
    def good(self) -> bool:
        """Whether it did what it was asked to."""
        return self.next is Next.GO_ON


def interpret(exit_code: int | None, output: str, files: Collection[str]) -> Outcome:
    """What came of `config.sh` configuring the runner.

    `exit_code` as a shell tells it, None when nobody saw it; `files` are those of
    REGISTRATION_FILES that exist now. Only all of them and a 0 are a registration.
    """
    if exit_code != 0:
        return failed(reason_for(exit_code, output), output)
    if set(REGISTRATION_FILES) <= set(files):
        return Outcome("registered", "", "the runner is registered", "", Next.GO_ON)
    return failed(INCOMPLETE, output)


def interpret_removal(exit_code: int | None, output: str) -> Outcome:
    """What came of `config.sh remove`; a runner that was gone already is removed."""
    if exit_code == 0:
        return Outcome("removed", "", "the runner is removed", "", Next.GO_ON)
    reason = reason_for(exit_code, output)
    return failed(BUSY if last_status(output) == 422 else reason, output)


def reason_for(exit_code: int | None, output: str) -> Reason:
    """Why it failed: what it said for sure, what GitHub said, what may be guessed."""
    return (
        fitting(SAID, output)
        or answered(last_status(output))
        or SHELL.get(exit_code or 0)
        or fitting(CONNECTION_FAILURES, output)
        or ended(exit_code)
    )


def fitting(table: tuple[tuple[str, Reason], ...], output: str) -> Reason | None:
    """The first row whose pattern is in the output."""
    return next((reason for said, reason in table if re.search(said, output)), None)


def last_status(output: str) -> int | None:
    """The HTTP status of the last request that failed."""
    found = [number or name for number, name in STATUSES.findall(output)]
    if not found:
        return None
    return int(found[-1]) if found[-1].isdecimal() else STATUS_NAMES.get(found[-1], 400)


def answered(status: int | None) -> Reason | None:
    """What a status means."""
    if status is None:
        return None
    return ANSWERED.get(status, SERVER_ERROR if status >= 500 else REFUSED)


def ended(exit_code: int | None) -> Reason:
    """What the exit code alone means."""
    if exit_code is None:
        return LOST
    return KILLED if exit_code > 128 else UNKNOWN


def failed(reason: Reason, output: str) -> Outcome:
    """The outcome for `reason`, in config.sh's own last words."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    message = (
        one_line(redact(lines[-1]))[:MESSAGE_CHARACTERS] if lines else "it said nothing"
    )
    return Outcome(reason.kind, reason.category, message, reason.hint, reason.next)
