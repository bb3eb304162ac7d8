"""Named scenarios of a Listener start, each made of a session and messages.

An entry of the plan's `listener` list is expanded here; what it says itself wins over
what its scenario says.
"""

from __future__ import annotations

from typing import Any

#: Keys of an entry that are about the Listener and not about the job it is given.
LISTENER_KEYS = {
    "scenario",
    "after",
    "hold_job",
    "session",
    "messages",
    "jobs",
    "ignore_signals",
    "term_code",
    "delete_session_seconds",
}
JOB: dict[str, Any] = {"kind": "job"}
#: What is printed when the service gives no reason for refusing the runner's version.
TOO_OLD = (
    "Exception of type 'GitHub.DistributedTask.WebApi.AccessDeniedException'"
    " was thrown."
)
#: scenario: what the Listener entry is, in the terms of `session` and `messages`.
SCENARIOS: dict[str, dict[str, Any]] = {
    "idle": {},
    "job": {"messages": [JOB]},
    "jobs": {},
    "server_cancel": {"messages": [{**JOB, "server_cancels": True, "seconds": 600}]},
    "job_cancelled_hard": {
        "messages": [
            {
                **JOB,
                "server_cancels": True,
                "seconds": 600,
                "steps": [{"condition": "always()", "seconds": 600}],
            }
        ]
    },
    "ignores_signals": {"ignore_signals": True},
    "slow_stop": {"delete_session_seconds": 30.0},
    "listener_killed": {"messages": [{**JOB, "seconds": 600, "dies": "listener"}]},
    "worker_killed": {"messages": [{**JOB, "seconds": 600, "dies": "worker"}]},
    "session_conflict": {"session": {"conflicts": 8}},
    "session_conflict_recovers": {"session": {"conflicts": 3}},
    "network_error": {"session": {"network_errors": 2}},
    "not_authorised": {"session": {"fatal": "authorisation"}},
    "clock_skew": {"session": {"fatal": "clock"}},
    "no_work_folder": {"session": {"fatal": "work_folder"}},
    "registration_deleted": {"session": {"fatal": "deleted"}},
    "runner_unknown": {"session": {"fatal": "unknown"}},
    "deleted_while_idle": {"messages": [{"kind": "deleted"}]},
    "deleted_while_busy": {
        "messages": [{**JOB, "registration_goes": True, "seconds": 600}]
    },
    "worker_hangs": {"messages": [{**JOB, "hangs": "start"}]},
    "completion_fails": {"messages": [{**JOB, "completion": "fails"}]},
    "completion_hangs": {"messages": [{**JOB, "completion": "hangs"}]},
    "first_renewal_fails": {"messages": [{**JOB, "first_renewal_fails": True}]},
    "acquire_hangs": {"messages": [{"kind": "acquire_hangs"}]},
    "request_unknown": {"messages": [{"kind": "request_unknown"}]},
    "poll_retries": {"messages": [{"kind": "poll_retries"}, JOB]},
    "poll_errors": {"messages": [{"kind": "poll_errors", "count": 3}]},
    "crash_loop": {"messages": [{"kind": "poll_errors", "count": 10}]},
    "update": {"messages": [{"kind": "update"}]},
    "deprecated": {"messages": [{"kind": "deprecated"}]},
    "too_old": {"messages": [{"kind": "deprecated", "text": TOO_OLD}]},
    "ghost": {"messages": [{"kind": "ghost"}]},
    "job_lost": {"messages": [{**JOB, "lost": True}]},
    "setup_failed": {"messages": [{**JOB, "setup_fails": True}]},
    "abandoned": {
        "messages": [{**JOB, "renewal_fails": True, "seconds": 600}],
    },
    "token_revoked": {"messages": [{"kind": "token_revoked"}]},
    "flood": {"messages": [{"kind": "flood"}, JOB]},
    "stdout_closed": {"messages": [{"kind": "stdout_closed"}, JOB]},
    "stdout_held": {"messages": [{"kind": "stdout_held"}, JOB]},
    "exit": {"messages": [{"kind": "exit"}]},
}


def expand(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with its scenario written out; raises KeyError for an unknown one."""
    expanded = {**SCENARIOS[entry.get("scenario", "idle")], **entry}
    extra = {key: entry[key] for key in set(entry) - LISTENER_KEYS}
    if "hold_step" in extra:
        extra["hold"] = extra.pop("hold_step")
    first = {"after": entry.get("after", 0.0), "hold_job": holds_job(entry)}
    messages = expanded.get("messages", [])
    if "jobs" in entry:
        messages = [{**JOB, **job} for job in entry["jobs"]]
    expanded["messages"] = [{**message, **extra} for message in messages]
    if expanded["messages"]:
        head = expanded["messages"][0]
        expanded["messages"][0] = {**first, **head}
    return expanded


def holds_job(entry: dict[str, Any]) -> bool:
    """`hold` holds all that can be held: the idle Listener, and the step."""
    return bool(entry.get("hold_job", entry.get("hold", False)))
