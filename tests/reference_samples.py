"""Events, heartbeats and commands as the contract wants them, for tests to spoil."""

from __future__ import annotations

import uuid
from typing import Any

TIMESTAMP = "2026-01-15T10:30:00.123Z"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

USAGE = {
    "cpu_seconds": 12.5,
    "max_memory_bytes": 104857600,
    "io_read_bytes": 4096,
    "io_write_bytes": None,
}
JOB = {
    "repository": "octo/widget",
    "workflow": "ci",
    "ref": "refs/heads/main",
    "commit": "f00dfeedf00dfeedf00dfeedf00dfeedf00dfeed",
    "run_attempt": 1,
}

#: A good ``data`` of every type of event.
EVENT_DATA: dict[str, dict[str, Any]] = {
    "VMStarted": {
        "version": "0.1.0",
        "boot_id": "8a6ba3f6-0000-4000-8000-000000000000",
        "cloud": None,
        "zone": None,
        "instance_name": None,
        "hostname": "vm-1",
        "machine_type": None,
        "image": None,
        "cpu_count": 2,
        "memory_bytes": 8 << 30,
        "disk_bytes": 100 << 30,
        "runner_version": "2.329.0",
        "preflight": [
            {
                "id": "disk",
                "status": "ok",
                "milliseconds": 0.4,
                "detail": "90 GB free",
                "hint": None,
            }
        ],
        "timeline": {"kernel": 0, "miglet": 3100.5, "metadata": None},
    },
    "RunnerRegistered": {
        "runner_name": "vm-1-8a6ba3f6",
        "runner_id": 42,
        "runner_version": "2.329.0",
        "labels": ["self-hosted", "linux"],
        "runner_group": "default",
        "runner_url": "https://github.com/octo",
        "attempts": 1,
        "duration_seconds": 2.5,
        "timeline": {},
    },
    "JobStarted": {
        "name": "build",
        **JOB,
        "actor": "octocat",
        "event_name": "push",
        "source": "hook",
    },
    "JobHeartbeat": {
        "elapsed_seconds": 15.0,
        "resource_usage": USAGE,
        "name": "build",
        "status": "running",
    },
    "JobCompleted": {
        "result": "failed",
        "cause": "failure",
        "exit_code": 1,
        "started_at": TIMESTAMP,
        "finished_at": TIMESTAMP,
        "duration_seconds": 61.0,
        "resource_usage": USAGE,
        **JOB,
        "evidence": ["the listener printed: Failed"],
    },
    "RunnerCrashed": {
        "exit_code": None,
        "signal": 9,
        "last_lines": ["Listening for Jobs"],
        "attempt": 1,
        "will_retry": True,
    },
    "TerminationNotice": {"kind": "preempted", "deadline": None, "source": "gce"},
    "VMShuttingDown": {
        "reason": "job_completed",
        "requested_by": "miglet",
        "uptime_seconds": 90.0,
        "detail": None,
    },
    "VMStopped": {
        "reason": "job_completed",
        "requested_by": "miglet",
        "uptime_seconds": 91.0,
        "removal": "removed",
        "runner_removed": True,
        "events_dropped": 0,
    },
    "Error": {
        "category": "misconfig",
        "code": "unknown_key",
        "message": "contoller.endpoint is unknown",
        "component": "config",
        "hint": "controller.endpoint",
    },
    "CommandCompleted": {
        "command_id": "cmd-1",
        "command_type": "Drain",
        "outcome": "done",
        "reason": None,
    },
}


def event(
    type: str = "VMShuttingDown",
    sequence: int | None = 1,
    vm: str = "vm-1",
    **data: Any,
) -> dict[str, Any]:
    """A good event of `type`; `data` changes single keys of it."""
    return {
        "schema": 1,
        "id": str(uuid.uuid4()),
        "sequence": None if type == "JobHeartbeat" else sequence,
        "type": type,
        "timestamp": TIMESTAMP,
        "vm_id": vm,
        "pool_id": "pool-1",
        "org_id": "org-1",
        "job_id": None,
        "run_id": None,
        "trace_id": TRACE_ID,
        "state": "idle",
        "data": {**EVENT_DATA[type], **data},
        "metadata": {},
    }


def heartbeat(vm: str = "vm-1", **changes: Any) -> dict[str, Any]:
    """A good heartbeat; `changes` replace single keys of it."""
    beat: dict[str, Any] = {
        "timestamp": TIMESTAMP,
        "vm_id": vm,
        "pool_id": "pool-1",
        "org_id": "org-1",
        "miglet_state": "idle",
        "vm_health": {"cpu_percent": 3.2, "load1": None, "pressure": {}, "inodes": 7},
        "runner_state": "idle",
        "current_job": None,
        "workers": {"runner-watcher": {"restarts": 0, "healthy": True}},
        "events_pending": 0,
        "boot_id": "8a6ba3f6-0000-4000-8000-000000000000",
        "interval_seconds": 15.0,
        "events_rejected": 0,
        "events_dropped": 0,
    }
    return {**beat, **changes}
