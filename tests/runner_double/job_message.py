"""The job request as the service sends it, built from a job in the plan.

Dictionaries of the context have the form `{"t": 2, "d": [{"k": ..., "v": ...}]}` and
numbers are doubles: the numeric job id arrives as `555000111.0`.
"""

from __future__ import annotations

import uuid
from typing import Any

FIRST_CHECK_RUN = 555000111
FIRST_RUN = 7700000001
FIRST_REQUEST = 7
#: Masked in every log, as the tokens of a real job are.
TOKENS = ("ghs_double0job0token", "eyJdouble0access0token")
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
        return {"t": 2, "d": entries} if entries else {"t": 2}
    if isinstance(value, list):
        return {"t": 1, "a": [packed(item) for item in value]}
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def identify(job: dict[str, Any], number: int, broker: bool = True) -> dict[str, Any]:
    """The job with every part of its identity; `number` counts the jobs from 0.

    A request has a number of its own only in the older flow.
    """
    ids = {
        "run_id": str(FIRST_RUN + number),
        "check_run_id": FIRST_CHECK_RUN + number,
        "job_id": str(uuid.uuid4()),
        "plan_id": str(uuid.uuid4()),
        "request_id": 0 if broker else FIRST_REQUEST + number,
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


def secrets_of(job: dict[str, Any]) -> list[str]:
    """What the Worker masks in its log: the job's tokens and its own secrets."""
    return [*TOKENS, *job.get("secrets", [])]


def message(job: dict[str, Any]) -> dict[str, Any]:
    """The whole request, before the Worker masks it in its log."""
    secrets = {
        f"SECRET_{number}": {"value": secret, "isSecret": True}
        for number, secret in enumerate(job.get("secrets", []))
    }
    return {
        "fileTable": [".github/workflows/ci.yml"],
        "mask": [{"type": "regex", "value": each} for each in secrets_of(job)],
        "steps": [],
        "variables": {
            "system.github.job": {"value": job["job"]},
            "system.github.token": {"value": TOKENS[0], "isSecret": True},
            "system.culture": {"value": "en-US"},
            **secrets,
        },
        "messageType": "RunnerJobRequest",
        "plan": {
            "scopeIdentifier": job["plan_id"],
            "planType": "free",
            "version": 12,
            "planId": job["plan_id"],
            "planGroup": "free",
            "artifactUri": None,
        },
        "timeline": {"id": job["plan_id"], "changeId": 1, "location": None},
        "jobId": job["job_id"],
        "jobDisplayName": job["name"],
        "jobName": job["job"],
        "requestId": job["request_id"],
        "lockedUntil": "0001-01-01T00:00:00",
        "resources": {
            "endpoints": [
                {
                    "name": "SystemVssConnection",
                    "authorization": {"parameters": {"AccessToken": TOKENS[1]}},
                    "isShared": False,
                    "isReady": True,
                }
            ]
        },
        "contextData": {
            "github": packed(github_context(job)),
            "needs": packed({}),
            "inputs": None,
            "matrix": packed(job.get("matrix")),
            "strategy": packed({"fail-fast": True}),
            "vars": packed({}),
            "secrets": None,
            "job": packed(job_context(job)),
        },
        "environmentVariables": [packed(job.get("env", {}))],
    }
