"""What the runner shows, as values: one frozen class for each kind of sign.

A sign is what one source showed at one moment. No source is trusted alone: signs are
collected in `evidence` and judged in `verdict`, and nowhere else.
"""

from __future__ import annotations

import re
from typing import ClassVar

from miglet.messages.codec import INTEGER_LIMIT, Value, frozen_value
from miglet.messages.events import JobIdentity

#: Where signs come from, the most trusted description of a job first: the job message
#: in the Worker's log, our hooks, the Listener's log and its output.
SOURCES = ("worker_log", "hook", "runner_log", "output", "perflog")

#: TaskResult of the runner (actions/runner TaskResult.cs), in the order of its codes.
RESULTS = (
    "Succeeded",
    "SucceededWithIssues",
    "Failed",
    "Canceled",
    "Skipped",
    "Abandoned",
)

#: Every kind of sign by its name, filled as the classes below are defined.
KINDS: dict[str, type[Sign]] = {}

_TEXT_BYTES = 256
_LONG_BYTES = 512
_LONG_FIELDS = ("name", "ref")
_NUMBER = re.compile(r"[0-9]{1,20}\Z")


def clip(text: str, size_bytes: int = _TEXT_BYTES) -> str:
    """`text` without what exceeds `size_bytes` of UTF-8, never half a character."""
    return text.encode("utf-8", "replace")[:size_bytes].decode("utf-8", "ignore")


def identity_of(values: dict[str, object]) -> JobIdentity:
    """The identity in `values`, which anybody may have written: checked and cut.

    A number that is none and a text that is empty count as not said.
    """
    attempt = _number(values.get("run_attempt"))
    return JobIdentity(
        job_id=_number(values.get("job_id")),
        run_id=_number(values.get("run_id")),
        name=_text("name", values),
        repository=_text("repository", values),
        workflow=_text("workflow", values),
        ref=_text("ref", values),
        commit=_text("commit", values),
        run_attempt=int(attempt) if attempt else None,
        actor=_text("actor", values),
        event_name=_text("event_name", values),
    )


def _number(value: object) -> str | None:
    """Digits as text; the runner writes numbers as doubles (`555000111.0`)."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    # Compared before it becomes text: huge integers refuse to be printed.
    if isinstance(value, int) and not 0 <= value < INTEGER_LIMIT:
        return None
    text = str(value)
    return text if _NUMBER.match(text) and int(text) < INTEGER_LIMIT else None


def _text(key: str, values: dict[str, object]) -> str | None:
    value = values.get(key)
    if not isinstance(value, str):
        return None
    return clip(value, _LONG_BYTES if key in _LONG_FIELDS else _TEXT_BYTES) or None


@frozen_value
class Sign(Value):
    """Something seen at wall time `at` in `source` (one of SOURCES)."""

    #: Whether this alone shows that a job is on the machine.
    of_job: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        KINDS[cls.__name__] = cls

    at: float
    source: str


@frozen_value
class RunnerVersion(Sign):
    """The Listener said which version it is."""

    version: str


@frozen_value
class Listening(Sign):
    """The Listener is ready for a job. `version` is None where it is not known."""

    version: str | None = None


@frozen_value
class JobRequested(Sign):
    """A job's message has come in; the job is not ours before it is acquired."""


@frozen_value
class JobSkipped(Sign):
    """The job could not be acquired: an ephemeral Listener is a ghost from here on."""

    text: str


@frozen_value
class JobRunning(Sign):
    """The Listener has acquired a job and is about to start its Worker."""

    of_job: ClassVar[bool] = True

    name: str


@frozen_value
class JobIdentified(Sign):
    """Somebody described the job."""

    of_job: ClassVar[bool] = True

    identity: JobIdentity


@frozen_value
class JobResult(Sign):
    """A claim that the job had this result (one of RESULTS).

    A job can write it as well as the runner: what it is worth depends on whether the
    Worker had ended by then. The Worker's own log has it before the job is completed.
    """

    of_job: ClassVar[bool] = True

    result: str


@frozen_value
class ResultIgnored(Sign):
    """A result was claimed while the Worker lived; it does not count."""


@frozen_value
class NameOfSeveralLines(Sign):
    """The job's name contains newlines: a printed line may be a part of it."""


@frozen_value
class HookStarted(Sign):
    """Our job-started hook ran: the job's set-up has passed."""

    of_job: ClassVar[bool] = True


@frozen_value
class HookCompleted(Sign):
    """Our job-completed hook ran: all steps are over, the result is not out yet."""

    of_job: ClassVar[bool] = True


@frozen_value
class HookRefused(Sign):
    """A hook's report is not one that our hook writes; it was not believed."""

    text: str


@frozen_value
class WorkerStarted(Sign):
    """The Worker, which runs one job, was started."""

    of_job: ClassVar[bool] = True


@frozen_value
class JobReceived(Sign):
    """The Worker has read its job: it does not hang before it begins."""

    of_job: ClassVar[bool] = True


@frozen_value
class StepsBegan(Sign):
    """The Worker went through "Set up job" and on to the first step."""

    of_job: ClassVar[bool] = True


@frozen_value
class WorkerEnded(Sign):
    """The Worker's exit status: 100 + result; anything else is a crash."""

    of_job: ClassVar[bool] = True

    code: int


@frozen_value
class CancelReceived(Sign):
    """The job is to stop, for the server or for a signal to the Listener."""


@frozen_value
class ShutdownSignalled(Sign):
    """The Listener handles a signal to end."""


@frozen_value
class ShutdownReceived(Sign):
    """The Worker has received that its Listener, or the machine, shuts down."""


@frozen_value
class ConnectError(Sign):
    """The Listener cannot reach the service and goes on trying."""

    text: str


@frozen_value
class Reconnected(Sign):
    """Connected again. Its absence says nothing: after poll errors it is silent."""


@frozen_value
class SessionConflict(Sign):
    """The service still holds another session for this runner; retried for 240 s."""


@frozen_value
class VersionDeprecated(Sign):
    """The service refuses this version of the runner."""

    text: str


@frozen_value
class RegistrationGone(Sign):
    """The service does not know this runner any more."""

    text: str


@frozen_value
class RegistrationRemoved(Sign):
    """The Listener deleted its own registration files, as ephemeral ones do."""


@frozen_value
class NotConfigured(Sign):
    """The Listener found no registration in its folder."""


@frozen_value
class OAuthRevoked(Sign):
    """The service revoked the runner's credentials; the Listener ends with 0."""


@frozen_value
class RunnerFailed(Sign):
    """The Listener said why it is about to end."""

    text: str


@frozen_value
class Updating(Sign):
    """The runner is replacing itself by another version."""


@frozen_value
class DiskFull(Sign):
    """A log says that there is no space left."""
