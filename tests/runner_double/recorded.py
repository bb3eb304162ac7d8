"""What the official runner 2.336.0 did, scenario by scenario, as it was recorded.

Only what MIGlet depends on: the lines of the Listener's output and of both logs in
their order, exit statuses, files that stay, hooks, and what the service received. The
double is held against this table, so that what MIGlet makes of the double it makes of
the official runner as well. Lines are regular expressions of whole lines; STAMP stands
for a time stamp. Polls, tokens and timeline records are left out of the calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"
GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

CONFIGURED = frozenset({".runner", ".credentials", ".credentials_rsaparams"})
NOTHING: frozenset[str] = frozenset()

#: The identity of every recorded job.
IDENTITY: dict[str, Any] = {
    "name": "build",
    "job": "build",
    "repository": "acme/widgets",
    "run_id": "8123456789",
    "run_number": "42",
    "run_attempt": "1",
    "check_run_id": 4242,
    "sha": "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff",
    "ref": "refs/heads/main",
    "actor": "octocat",
    "workflow": "CI",
    "event_name": "push",
}
HELLO = {"name": "Hello", "script": "echo hi\n"}
FAIL = {"name": "Fail", "script": "exit 3\n"}
LONG = {"name": "Long", "seconds": 600}
#: A name with a line that looks like a result.
LYING_NAME = "a\nb\n2026-11-28 14:28:01Z: Job x completed with result: Succeeded"


@dataclass(frozen=True)
class Recorded:
    """One scenario. Processes that still ran at the end have no exit status."""

    #: What the double's plan says of the Listener; more of it in `plan`.
    listener: dict[str, Any]
    output: tuple[str, ...]
    listener_exit: int | None
    runner_log: tuple[str, ...]
    calls: tuple[str, ...]
    worker_exit: int | None = None
    worker_log: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    #: Result of the job at the service, and the process that reported it.
    reported: tuple[str, str] | None = None
    hooks: tuple[str, ...] = ()
    left: frozenset[str] = NOTHING
    #: What is in neither log although one could expect it.
    absent: tuple[str, ...] = ()
    #: The signal that the Listener got when it was listening, or in the first step.
    interrupted: str | None = None
    #: Processes of the step lived on after the end.
    leaves_step: bool = False
    plan: dict[str, Any] = field(default_factory=dict)


def logged(source: str, text: str, level: str = "INFO") -> str:
    """An entry of a log."""
    return rf"\[{STAMP} {level} {source}\] {text}"


# The output.

START = (
    "",
    "√ Connected to GitHub",
    "",
    r"Current runner version: '2\.336\.0'",
    f"{STAMP}: Listening for Jobs",
)
RUNNING = f"{STAMP}: Running job: build"
REMOVED = (r"√ Removed \.credentials", r"√ Removed \.runner")
GONE = "The runner no longer exists on the server. Cleaning up local configuration."


def ran(result: str) -> tuple[str, ...]:
    """The output about a job."""
    return (*START, RUNNING, f"{STAMP}: Job build completed with result: {result}")


# The Listener's log.

VERSION = logged("Listener", r"Version: 2\.336\.0")
FINISHED = logged("Listener", "Runner execution has finished with return code 0")
CANCELLED = logged("Listener", "Runner execution been cancelled.")
DELETING = logged("Runner", r"Deleting Runner Session\.\.\.")
INTERRUPTED = (
    logged("Terminal", r"WRITE LINE: Exiting\.\.\."),
    logged("HostContext", "Runner will be shutdown for UserCancelled"),
)
CANCELLING = logged(
    "JobDispatcher", f"Send job cancellation message to worker for job {GUID}."
)
UNREGISTERED = (
    logged(
        "Runner",
        "Runner registration no longer exists while retrieving messages. Exception of"
        r" type 'GitHub\.Services\.WebApi\.RunnerNotFoundException' was thrown\.",
    ),
    logged("Terminal", f"WRITE ERROR: {GONE}", "ERR "),
)
ACKNOWLEDGING = logged(
    "BrokerMessageListener", f"Acknowledging runner request '{GUID}'."
)
WORKER_STARTED = (
    logged("ProcessInvokerWrapper", "Starting process:"),
    logged("ProcessInvokerWrapper", r"  File name: '\S+/bin/Runner\.Worker'"),
    logged("ProcessInvokerWrapper", r"  Arguments: 'spawnclient \d+ \d+'"),
    logged(
        "ProcessInvokerWrapper",
        r"Process started with process id \d+, waiting for process exit\.",
    ),
    logged("JobDispatcher", f"Send job request message to worker for job {GUID}."),
)
TAKEN = (
    ACKNOWLEDGING,
    logged("JobDispatcher", f"Job request 0 for plan {GUID} job {GUID} received."),
    logged("Terminal", f"WRITE LINE: {RUNNING}"),
)
RENEWED = logged(
    "JobDispatcher", f"Successfully renew job {GUID}, job is valid till .*"
)
BEGUN = (VERSION, *TAKEN, RENEWED, *WORKER_STARTED)
BEGUN_PIPELINES = (
    VERSION,
    logged("MessageListener", rf"Message '\d+' received from session '{GUID}'\."),
    logged("JobDispatcher", rf"Job request \d+ for plan {GUID} job {GUID} received\."),
    logged("Terminal", f"WRITE LINE: {RUNNING}"),
    logged(
        "JobDispatcher", r"Successfully renew job request \d+, job is valid till .*"
    ),
    *WORKER_STARTED,
)
ONE_TIME = logged(
    "Runner",
    "Job has finished at backend, the runner will exit since it is running under"
    " onetime use mode.",
)


def worker_gone(code: int, took: str = r"00:\d\d:\d\d\.\d{7}") -> str:
    """The one line about the Worker's end that is always there."""
    return logged(
        "ProcessInvokerWrapper",
        rf"Finished process \d+ with exit code {code}, and elapsed time {took}\.",
    )


def worker_finished(code: int) -> str:
    """The line that is missing where a cancel or a stop has decided the result."""
    return logged("JobDispatcher", rf"Worker finished for job {GUID}\. Code: {code}")


def concluded(result: str, name: str = "build") -> tuple[str, ...]:
    """The result in the log, and on the terminal."""
    return (
        logged(
            "JobDispatcher", f"finish job request for job {GUID} with result: {result}"
        ),
        logged(
            "Terminal",
            f"WRITE LINE: {STAMP}: Job {name} completed with result: {result}",
        ),
    )


def crashed(code: int) -> tuple[str, ...]:
    """A Worker that has ended with something else than a result."""
    return (
        worker_gone(code),
        worker_finished(code),
        logged(
            "JobDispatcher",
            f"Return code {code} indicate worker encounter an unhandled exception or"
            " app crash, attach worker stdout/stderr to JobRequest result.",
        ),
    )


# The Worker's log.

MESSAGE = (
    logged("Worker", r"Version: 2\.336\.0"),
    logged("Worker", "Waiting to receive the job message from the channel."),
    logged("Worker", r"Message received\."),
    logged("Worker", "Job message:"),
    r" \{",
)
#: What identifies the job in its message; each is a line of its own, in this order.
MESSAGE_IDENTITY = (
    f'  "jobId": "{GUID}",',
    '  "jobDisplayName": "build",',
    '  "jobName": "build",',
    '  "contextData": {',
    '    "github": {',
    '          "k": "repository",',
    '          "v": "acme/widgets"',
    '          "k": "run_id",',
    '          "v": "8123456789"',
    '    "job": {',
    '          "k": "check_run_id",',
    r'          "v": 4242\.0',
    r"\}",
)
JOB_ID = logged("JobRunner", f"Job ID {GUID}")
SET_UP = logged("StepsRunner", "Processing step: DisplayName='Set up runner'")
COMPLETE = logged("StepsRunner", "Processing step: DisplayName='Complete runner'")
WORKER_CANCELLED = logged("Worker", r"Cancellation/Shutdown message received\.")
STEP_SUCCEEDED = logged("StepsRunner", "Step result: ")
STEP_FAILED = logged("StepsRunner", "Step result: Failed")
STEP_CANCELLED = logged("StepsRunner", "Step result: Canceled")
RAISING = logged("JobRunner", "Raising job completed against run service")
RAISING_EVENT = logged("JobRunner", "Raising job completed event")
JOB_COMPLETED = logged("Worker", r"Job completed\.")


def step(name: str) -> str:
    """A step begins."""
    return logged("StepsRunner", f"Processing step: DisplayName='{name}'")


def outcome(result: str) -> str:
    """All steps are over."""
    return logged("JobRunner", f"Job result after all job steps finish: {result}")


IDENTIFIED = (*MESSAGE, *MESSAGE_IDENTITY, JOB_ID, SET_UP, STEP_SUCCEEDED)


# The calls.

SESSION = ("session",)
BROKER_CALLS = ("session", "acknowledge", "acquire", "renew", "complete")
BROKER_ENDED = (*BROKER_CALLS, "session-deleted")
PIPELINES_CALLS = ("session", "renew", "message-deleted", "event")
PIPELINES_ENDED = (*PIPELINES_CALLS, "session-deleted")
PIPELINES = {"flow": "pipelines"}
BOTH_HOOKS = ("started", "completed")


def job(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A job with these steps."""
    return {"scenario": "job", "steps": list(steps), **IDENTITY, **more}


def success(**more: Any) -> Recorded:
    """A job that succeeds, with what is special about it."""
    plain: dict[str, Any] = {
        "listener": job(HELLO),
        "output": (*ran("Succeeded"), *REMOVED),
        "listener_exit": 0,
        "worker_exit": 100,
        "reported": ("Succeeded", "worker"),
        "runner_log": (
            *BEGUN,
            worker_gone(100),
            worker_finished(100),
            *concluded("Succeeded"),
            ONE_TIME,
            DELETING,
            FINISHED,
        ),
        "worker_log": (
            *IDENTIFIED,
            step("Hello"),
            STEP_SUCCEEDED,
            COMPLETE,
            outcome("Succeeded"),
            RAISING,
            JOB_COMPLETED,
        ),
        "calls": BROKER_ENDED,
        "hooks": BOTH_HOOKS,
    }
    return Recorded(**{**plain, **more})


def masked(secret: str, *lines: str) -> Recorded:
    """A success whose job message has `secret` masked, so that it has these lines."""
    return success(
        listener=job(HELLO, secrets=[secret]),
        worker_log=(*MESSAGE[:-1], *lines, JOB_ID, outcome("Succeeded"), RAISING),
    )


#: By the name of the recording.
SCENARIOS: dict[str, Recorded] = {
    "success": success(),
    "failure": Recorded(
        listener=job(HELLO, FAIL),
        output=(*ran("Failed"), *REMOVED),
        listener_exit=0,
        worker_exit=102,
        reported=("Failed", "worker"),
        runner_log=(
            *BEGUN,
            worker_gone(102),
            worker_finished(102),
            *concluded("Failed"),
            ONE_TIME,
            DELETING,
            FINISHED,
        ),
        worker_log=(
            *IDENTIFIED,
            step("Hello"),
            STEP_SUCCEEDED,
            step("Fail"),
            STEP_FAILED,
            COMPLETE,
            outcome("Failed"),
            RAISING,
            JOB_COMPLETED,
        ),
        calls=BROKER_ENDED,
        hooks=BOTH_HOOKS,
    ),
    "cancel": Recorded(
        listener=job(LONG, server_cancels=True),
        output=(*ran("Canceled"), *REMOVED),
        listener_exit=0,
        worker_exit=103,
        reported=("Canceled", "worker"),
        runner_log=(
            *BEGUN,
            logged("JobDispatcher", f"Job cancellation request {GUID} received, .*"),
            CANCELLING,
            worker_gone(103),
            *concluded("Canceled"),
            ONE_TIME,
            DELETING,
            FINISHED,
        ),
        worker_log=(
            *IDENTIFIED,
            step("Long"),
            WORKER_CANCELLED,
            STEP_CANCELLED,
            COMPLETE,
            outcome("Canceled"),
            RAISING,
        ),
        absent=(worker_finished(103), JOB_COMPLETED),
        calls=BROKER_ENDED,
        hooks=BOTH_HOOKS,
    ),
    "sigint-busy": Recorded(
        listener=job(LONG),
        interrupted="busy",
        output=(
            *START,
            RUNNING,
            r"Exiting\.\.\.",
            f"{STAMP}: Job build completed with result: Canceled",
        ),
        listener_exit=0,
        worker_exit=102,
        reported=("Failed", "worker"),
        runner_log=(
            *BEGUN,
            *INTERRUPTED,
            CANCELLING,
            worker_gone(102),
            *concluded("Canceled"),
            DELETING,
            CANCELLED,
        ),
        worker_log=(
            *IDENTIFIED,
            step("Long"),
            WORKER_CANCELLED,
            STEP_CANCELLED,
            COMPLETE,
            outcome("Failed"),
            RAISING,
        ),
        absent=(worker_finished(102), JOB_COMPLETED, FINISHED),
        calls=BROKER_ENDED,
        hooks=("started",),
        left=CONFIGURED,
    ),
    "sigint-idle": Recorded(
        listener={"scenario": "idle"},
        interrupted="idle",
        output=(*START, r"Exiting\.\.\."),
        listener_exit=0,
        runner_log=(VERSION, *INTERRUPTED, DELETING, CANCELLED),
        calls=("session", "session-deleted"),
        left=CONFIGURED,
    ),
    "worker-killed": Recorded(
        listener=job(LONG, dies="worker"),
        output=(*ran("Failed"), *REMOVED),
        listener_exit=0,
        worker_exit=137,
        reported=("Failed", "listener"),
        runner_log=(
            *BEGUN,
            *crashed(137),
            *concluded("Failed"),
            ONE_TIME,
            DELETING,
            FINISHED,
        ),
        worker_log=(*IDENTIFIED, step("Long")),
        absent=(COMPLETE, RAISING, r".*Job result after all job steps finish.*"),
        calls=BROKER_ENDED,
        hooks=("started",),
        leaves_step=True,
    ),
    "listener-killed": Recorded(
        listener=job(
            {"name": "Long", "seconds": 1.0},
            {"name": "After", "script": "echo after\n"},
            dies="listener",
        ),
        output=(*START, RUNNING),
        listener_exit=-9,
        worker_exit=100,
        reported=("Succeeded", "worker"),
        runner_log=BEGUN,
        worker_log=(
            *IDENTIFIED,
            step("Long"),
            STEP_SUCCEEDED,
            step("After"),
            STEP_SUCCEEDED,
            COMPLETE,
            outcome("Succeeded"),
            RAISING,
            JOB_COMPLETED,
        ),
        absent=(DELETING, FINISHED, CANCELLED, worker_gone(100), worker_finished(100)),
        calls=BROKER_CALLS,
        hooks=BOTH_HOOKS,
        left=CONFIGURED,
    ),
    "gone-while-idle": Recorded(
        listener={"scenario": "deleted_while_idle"},
        output=(*START, *REMOVED),
        errors=(GONE,),
        listener_exit=0,
        runner_log=(VERSION, *UNREGISTERED, FINISHED),
        absent=(DELETING,),
        calls=SESSION,
    ),
    "gone-while-busy": Recorded(
        listener=job(LONG, registration_goes=True),
        output=(*ran("Canceled"), *REMOVED),
        errors=(GONE,),
        listener_exit=0,
        worker_exit=103,
        reported=("Canceled", "worker"),
        runner_log=(
            *BEGUN,
            *UNREGISTERED,
            CANCELLING,
            worker_gone(103),
            *concluded("Canceled"),
            FINISHED,
        ),
        worker_log=(
            *IDENTIFIED,
            step("Long"),
            WORKER_CANCELLED,
            STEP_CANCELLED,
            COMPLETE,
            outcome("Canceled"),
            RAISING,
        ),
        absent=(DELETING, worker_finished(103), JOB_COMPLETED),
        calls=BROKER_CALLS,
        hooks=BOTH_HOOKS,
    ),
    "acquire-409": Recorded(
        listener={"scenario": "ghost", **IDENTITY},
        output=START,
        listener_exit=None,
        runner_log=(
            VERSION,
            ACKNOWLEDGING,
            *3
            * (
                logged("RunServer", "Catch exception during request", "ERR "),
                logged(
                    "RunServer",
                    r"System\.Exception: Failed to get job message: Error:"
                    r" Conflict\..*",
                    "ERR ",
                ),
                logged(
                    "RunServer",
                    r"Back off \d+\.\d+ seconds before next retry\. \d attempt left\.",
                    "WARN",
                ),
            ),
        ),
        calls=("session", "acknowledge", "acquire", "acquire", "acquire"),
        left=CONFIGURED,
    ),
    "acknowledge-404": Recorded(
        listener={"scenario": "request_unknown", **IDENTITY},
        output=(*START, *REMOVED),
        listener_exit=0,
        runner_log=(
            VERSION,
            ACKNOWLEDGING,
            logged(
                "Runner",
                "Acknowledge returned job-not-found for ephemeral runner request"
                rf" '{GUID}'\. Exiting runner\.",
            ),
            DELETING,
            FINISHED,
        ),
        calls=("session", "acknowledge", "session-deleted"),
    ),
    "renew-500": Recorded(
        listener=job(HELLO, first_renewal_fails=True),
        output=(*START, RUNNING),
        listener_exit=None,
        runner_log=(
            VERSION,
            *TAKEN,
            *2
            * (
                *5
                * (
                    logged(
                        "(?:RunServer|JobDispatcher)",
                        r"System\.Exception: Failed to renew job: Error: Internal"
                        r" Server Error\..*",
                        "ERR ",
                    ),
                ),
                logged(
                    "JobDispatcher",
                    rf"Retrying lock renewal for job {GUID}\. The first job renew"
                    r" request has failed\.",
                ),
            ),
        ),
        absent=(RENEWED, *WORKER_STARTED),
        calls=("session", "acknowledge", "acquire", *11 * ("renew",)),
        left=CONFIGURED,
    ),
    "too-old": Recorded(
        listener={"scenario": "too_old"},
        output=START,
        errors=(
            r"An error occurred: Exception of type"
            r" 'GitHub\.DistributedTask\.WebApi\.AccessDeniedException' was thrown\.",
        ),
        listener_exit=7,
        runner_log=(
            VERSION,
            DELETING,
            logged("Terminal", "WRITE ERROR: An error occurred: .*", "ERR "),
        ),
        absent=(FINISHED, CANCELLED),
        calls=("session", "session-deleted"),
        left=CONFIGURED,
    ),
    "poll-500": success(
        listener={**job(HELLO), "scenario": "poll_retries"},
        worker_log=(*IDENTIFIED, COMPLETE, outcome("Succeeded"), RAISING),
    ),
    "newline-in-name": Recorded(
        listener=job(FAIL, name=LYING_NAME),
        output=(
            *START,
            f"{STAMP}: Running job: a",
            "b",
            "2026-11-28 14:28:01Z: Job x completed with result: Succeeded",
            f"{STAMP}: Job a",
            "b",
            "2026-11-28 14:28:01Z: Job x completed with result: Succeeded completed"
            " with result: Failed",
            *REMOVED,
        ),
        listener_exit=0,
        worker_exit=102,
        reported=("Failed", "worker"),
        runner_log=(
            VERSION,
            logged("Terminal", f"WRITE LINE: {STAMP}: Running job: a"),
            "b",
            "2026-11-28 14:28:01Z: Job x completed with result: Succeeded",
            *WORKER_STARTED,
            worker_gone(102),
            worker_finished(102),
            concluded("Failed")[0],
            logged("Terminal", f"WRITE LINE: {STAMP}: Job a"),
            "b",
            "2026-11-28 14:28:01Z: Job x completed with result: Succeeded completed"
            " with result: Failed",
            FINISHED,
        ),
        worker_log=(
            *MESSAGE,
            r'  "jobDisplayName": "a\\nb\\n2026-11-28 14:28:01Z: Job x completed with'
            ' result: Succeeded",',
            JOB_ID,
            outcome("Failed"),
            RAISING,
            JOB_COMPLETED,
        ),
        calls=BROKER_ENDED,
        hooks=BOTH_HOOKS,
    ),
    "masked-true": masked(
        "true",
        r" \{",
        r'      "isSecret": \*\*\*',
        *MESSAGE_IDENTITY[:9],
        r'          "v": \*\*\*',
        *MESSAGE_IDENTITY[9:],
    ),
    "masked-brace": masked(
        "{",
        r" \*\*\*",
        *MESSAGE_IDENTITY[:3],
        r'  "contextData": \*\*\*',
        r'    "github": \*\*\*',
        *MESSAGE_IDENTITY[5:9],
        r'    "job": \*\*\*',
        *MESSAGE_IDENTITY[10:],
    ),
    "masked-quote": masked(
        '"',
        r" \{",
        rf"  \*\*\*jobId\*\*\*: \*\*\*{GUID}\*\*\*,",
        r"  \*\*\*jobDisplayName\*\*\*: \*\*\*build\*\*\*,",
        r"          \*\*\*k\*\*\*: \*\*\*run_id\*\*\*,",
        r"          \*\*\*v\*\*\*: \*\*\*8123456789\*\*\*",
        r"          \*\*\*k\*\*\*: \*\*\*check_run_id\*\*\*,",
        r"          \*\*\*v\*\*\*: 4242\.0",
        r"\}",
    ),
    "v1-success": success(
        plan=PIPELINES,
        runner_log=(
            *BEGUN_PIPELINES,
            worker_gone(100),
            worker_finished(100),
            *concluded("Succeeded"),
            ONE_TIME,
            DELETING,
            FINISHED,
        ),
        worker_log=(
            *IDENTIFIED,
            step("Hello"),
            STEP_SUCCEEDED,
            COMPLETE,
            outcome("Succeeded"),
            RAISING_EVENT,
            JOB_COMPLETED,
        ),
        absent=(ACKNOWLEDGING, RAISING),
        calls=PIPELINES_ENDED,
    ),
    "v1-failure": Recorded(
        plan=PIPELINES,
        listener=job(HELLO, FAIL),
        output=(*ran("Failed"), *REMOVED),
        listener_exit=0,
        worker_exit=102,
        reported=("Failed", "worker"),
        runner_log=(
            *BEGUN_PIPELINES,
            worker_gone(102),
            worker_finished(102),
            *concluded("Failed"),
            FINISHED,
        ),
        worker_log=(
            *IDENTIFIED,
            step("Fail"),
            STEP_FAILED,
            COMPLETE,
            outcome("Failed"),
            RAISING_EVENT,
            JOB_COMPLETED,
        ),
        calls=PIPELINES_ENDED,
        hooks=BOTH_HOOKS,
    ),
    "v1-cancel": Recorded(
        plan=PIPELINES,
        listener=job(LONG, server_cancels=True),
        output=(*ran("Canceled"), *REMOVED),
        listener_exit=0,
        worker_exit=103,
        reported=("Canceled", "worker"),
        runner_log=(
            *BEGUN_PIPELINES,
            logged("JobDispatcher", f"Job cancellation request {GUID} received, .*"),
            CANCELLING,
            worker_gone(103),
            *concluded("Canceled"),
            FINISHED,
        ),
        worker_log=(
            *IDENTIFIED,
            WORKER_CANCELLED,
            STEP_CANCELLED,
            COMPLETE,
            outcome("Canceled"),
            RAISING_EVENT,
        ),
        absent=(worker_finished(103), JOB_COMPLETED),
        #: The message that cancels is deleted like the one that brings the job.
        calls=(*PIPELINES_CALLS[:3], "message-deleted", "event", "session-deleted"),
        hooks=BOTH_HOOKS,
    ),
    "v1-listener-killed": Recorded(
        plan=PIPELINES,
        listener=job({"name": "Long", "seconds": 1.0}, dies="listener"),
        output=(*START, RUNNING),
        listener_exit=-9,
        worker_exit=100,
        reported=("Succeeded", "worker"),
        runner_log=BEGUN_PIPELINES,
        worker_log=(
            *IDENTIFIED,
            step("Long"),
            STEP_SUCCEEDED,
            COMPLETE,
            outcome("Succeeded"),
            RAISING_EVENT,
            JOB_COMPLETED,
        ),
        absent=(DELETING, FINISHED, CANCELLED),
        calls=PIPELINES_CALLS,
        hooks=BOTH_HOOKS,
        left=CONFIGURED,
    ),
    "v1-worker-killed": Recorded(
        plan=PIPELINES,
        listener=job(LONG, dies="worker"),
        output=(*ran("Failed"), *REMOVED),
        listener_exit=0,
        worker_exit=137,
        reported=None,
        runner_log=(
            *BEGUN_PIPELINES,
            *crashed(137),
            logged(
                "JobDispatcher",
                r"Fail to report unhandled exception from Runner\.Worker process",
                "ERR ",
            ),
            *concluded("Failed"),
            FINISHED,
        ),
        worker_log=(*IDENTIFIED, step("Long")),
        absent=(COMPLETE, RAISING_EVENT),
        calls=("session", "renew", "message-deleted", "session-deleted"),
        hooks=("started",),
        leaves_step=True,
    ),
}


# The environment of hooks.


def words(text: str) -> frozenset[str]:
    """The names in `text`."""
    return frozenset(text.split())


#: What the started hook has besides what the Listener was started with.
HOOK_ENVIRONMENT = words(
    """
    CI GITHUB_ACTIONS GITHUB_ACTOR GITHUB_API_URL GITHUB_ARTIFACTS GITHUB_ARTIFACTS_LIST
    GITHUB_ENV GITHUB_EVENT_NAME GITHUB_GRAPHQL_URL GITHUB_JOB GITHUB_OUTPUT GITHUB_PATH
    GITHUB_REF GITHUB_REF_NAME GITHUB_REF_TYPE GITHUB_REPOSITORY GITHUB_REPOSITORY_OWNER
    GITHUB_RUN_ATTEMPT GITHUB_RUN_ID GITHUB_RUN_NUMBER GITHUB_SERVER_URL GITHUB_SHA
    GITHUB_STATE GITHUB_STEP_SUMMARY GITHUB_WORKFLOW GITHUB_WORKFLOW_REF
    GITHUB_WORKSPACE RUNNER_ARCH RUNNER_NAME RUNNER_OS RUNNER_TEMP RUNNER_TOOL_CACHE
    RUNNER_TRACKING_ID RUNNER_WORKSPACE
    """
)
#: What the completed hook has besides.
COMPLETED_ENVIRONMENT = words(
    "GITHUB_ACTION GITHUB_ACTION_REF GITHUB_ACTION_REPOSITORY"
)
#: What a hook has only if the job's context has it; the recorded ones had it not.
CONTEXT_ENVIRONMENT = words(
    """
    GITHUB_ACTOR_ID GITHUB_BASE_REF GITHUB_EVENT_PATH GITHUB_HEAD_REF
    GITHUB_REF_PROTECTED GITHUB_REPOSITORY_ID GITHUB_REPOSITORY_OWNER_ID
    GITHUB_RETENTION_DAYS GITHUB_TRIGGERING_ACTOR GITHUB_WORKFLOW_SHA
    """
)


# The times, in seconds: the shortest and the longest that was measured.

Range = tuple[float, float]
BROKER_TIMES: dict[str, Range] = {
    "configure": (0.52, 1.05),
    "connected": (0.244, 0.382),
    "listening": (0.374, 0.590),
    "acquire": (0.110, 0.180),
    "worker_log": (0.215, 0.280),
    "job_message": (0.475, 0.745),
    "complete": (0.650, 1.0),
    "crash_report": (0.0, 0.045),
}
PIPELINES_TIMES: dict[str, Range] = {
    "configure": (2.78, 3.30),
    "connected": (1.154, 1.554),
    "listening": (1.195, 1.629),
    "acquire": (0.096, 0.173),
    "crash_report": (0.80, 0.84),
}
#: From the Worker's end to the result's line.
RESULT_PRINTED: Range = (0.005, 0.020)
#: From the result's line to the Listener's end.
LISTENER_END: Range = (0.042, 0.100)
#: From a SIGINT to the result of a job whose step does not answer it.
INTERRUPTED_BUSY: Range = (12.9, 13.1)
#: From a SIGINT to the end of an idle Listener.
INTERRUPTED_IDLE: Range = (0.063, 0.070)
