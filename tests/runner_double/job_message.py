"""The job request as the service sends it, built from a job in the plan.

Dictionaries of the context have the form `{"t": 2, "d": [{"k": ..., "v": ...}]}` and
numbers are doubles: the numeric job id arrives as `555000111.0`.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

FIRST_CHECK_RUN = 555000111
FIRST_RUN = 7700000001
SHA = "0123456789abcdef0123456789abcdef01234567"
#: What a job in the plan may say of its identity, and what it is when it does not.
IDENTITY: dict[str, Any] = {
    "name": "build",
    "job": "build",
    "repository": "octo-org/octo-repo",
    "ref": "refs/heads/main",
    "sha": SHA,
    "workflow": "CI",
    "actor": "octocat",
    "event_name": "push",
    "run_attempt": "1",
    "run_number": "42",
}


def packed(value: Any) -> Any:
    """`value` as context data."""
    if isinstance(value, dict):
        entries = [{"k": key, "v": packed(item)} for key, item in value.items()]
        return {"t": 2, "d": entries}
    if isinstance(value, list):
        return {"t": 1, "a": [packed(item) for item in value]}
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def identify(job: dict[str, Any], number: int) -> dict[str, Any]:
    """The job with every part of its identity; `number` counts the jobs from 0."""
    ids = {
        "run_id": str(FIRST_RUN + number),
        "check_run_id": FIRST_CHECK_RUN + number,
        "job_id": str(uuid.uuid4()),
        "plan_id": str(uuid.uuid4()),
        "request_id": number + 1,
        "tracking_id": f"github_{uuid.uuid4()}",
    }
    return {**IDENTITY, **ids, **job}


def github_context(job: dict[str, Any]) -> dict[str, Any]:
    owner = job["repository"].partition("/")[0]
    repository, ref = job["repository"], job["ref"]
    workflow_ref = f"{repository}/.github/workflows/ci.yml@{ref}"
    return {
        "ref": ref,
        "ref_name": ref.split("/", 2)[-1],
        "ref_protected": False,
        "ref_type": "tag" if ref.startswith("refs/tags/") else "branch",
        "base_ref": "",
        "head_ref": "",
        "sha": job["sha"],
        "repository": repository,
        "repository_id": "1001",
        "repository_owner": owner,
        "repository_owner_id": "1000",
        "run_id": job["run_id"],
        "run_number": str(job["run_number"]),
        "run_attempt": str(job["run_attempt"]),
        "retention_days": "90",
        "actor": job["actor"],
        "actor_id": "999",
        "triggering_actor": job["actor"],
        "workflow": job["workflow"],
        "workflow_ref": workflow_ref,
        "workflow_sha": job["sha"],
        "event_name": job["event_name"],
        "event": {"ref": ref, "repository": {"full_name": repository}},
        "server_url": "https://github.com",
        "api_url": "https://api.github.com",
        "graphql_url": "https://api.github.com/graphql",
        "job": job["job"],
    }


def job_context(job: dict[str, Any]) -> dict[str, Any]:
    """`job`: the check run's id is there only if the server's flag is on."""
    known = {"status": None, "check_run_id": job["check_run_id"]}
    return {key: value for key, value in known.items() if value is not None}


def message(job: dict[str, Any]) -> dict[str, Any]:
    """The whole request, as the Worker logs it with its secrets masked."""
    locked = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    return {
        "messageType": "RunnerJobRequest",
        "plan": {"scopeIdentifier": job["plan_id"], "planId": job["plan_id"]},
        "timeline": {"id": job["plan_id"], "changeId": 1},
        "jobId": job["job_id"],
        "jobDisplayName": job["name"],
        "jobName": job["job"],
        "requestId": job["request_id"],
        "lockedUntil": locked,
        "resources": {"endpoints": [{"authorization": {"AccessToken": "***"}}]},
        "contextData": {
            "github": packed(github_context(job)),
            "job": packed(job_context(job)),
            "matrix": packed(job.get("matrix")),
            "needs": packed({}),
            "vars": packed({}),
        },
        "variables": {
            "system.github.job": {"value": job["job"]},
            "system.github.token": {"value": "***", "isSecret": True},
        },
        "environmentVariables": [packed(job.get("env", {}))],
        "steps": [],
    }
