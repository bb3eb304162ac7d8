"""An agent's answers, given by a real control server."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from miglet.control import rpc
from miglet.control.server import ControlServer

STATUS = {
    "state": "job_running",
    "since": "2026-01-15T10:30:00.123Z",
    "version": "0.1.0",
    "pid": 12,
    "uptime_seconds": 3725.2,
    "vm_id": "vm-456",
    "pool_id": "pool-123",
    "org_id": "org-789",
    "degraded": False,
    "workers": {
        name: {"pid": 101, "healthy": True, "restarts": 0, "last_seen_seconds": 0.4}
        for name in ("runner-watcher", "heartbeat-sender")
    },
    "runner": {
        "state": "running",
        "name": "vm-456-ab12",
        "version": "2.329.0",
        "pid": 77,
        "adopted": True,
    },
    "job": {
        "job_id": "42",
        "run_id": "777001",
        "name": "build",
        "repository": "octo/widget",
        "started_at": "2026-01-15T10:30:00.123Z",
        "elapsed_seconds": 241.0,
        "trace_id": "t",
    },
    "controller": {"reachable": True, "last_contact_seconds": 2.0, "last_error": None},
    "events": {"pending": 1, "delivered": 12, "rejected": 0, "dropped": 0},
    "timeline": {"kernel": 0.0, "miglet": 25_920_000.0, "idle": 25_920_400.0},
    "log_level": "info",
    "last_error": None,
}


EVENTS = [
    {
        "sequence": 3,
        "type": "JobStarted",
        "timestamp": "2026-01-15T10:30:00.123Z",
        "status": "delivered",
        "job_id": "42",
    }
]


ANSWERS = {
    "status": STATUS,
    "events": EVENTS,
    "drain": {"accepted": True, "state": "draining"},
    "shutdown": {"accepted": False, "reason": "already shutting down"},
    "set_log_level": {"accepted": True},
    "config": [
        {"key": "pool_id", "value": "p", "source": "environment", "overrode": None},
        {"key": "github.labels", "value": ["a", "b"], "source": "x", "overrode": None},
    ],
    "metrics": {"cpu_percent": 1.5, "memory_used_bytes": 1.5 * 2**30, "net": {"a": 1}},
    "runner_log": {"lines": ["Listening for Jobs", "evil \x1b[2J"]},
}


def serve_for_ever(path: str, answers: dict, record_fd: int) -> None:
    """Answer from `answers`, and write each call to the descriptor `record_fd`."""

    def answer(method, params, peer):
        os.write(record_fd, json.dumps([method, params]).encode() + b"\n")
        if method not in answers:
            raise rpc.RpcError(rpc.UNKNOWN_METHOD, f"there is no method {method}")
        return answers[method]

    server = ControlServer(path, answer, frozenset({"drain", "shutdown"}))
    os.write(record_fd, b"ready\n")
    while True:
        if select.select([server], [], [], 0.05)[0]:
            server.serve()
        server.publish({"state": "idle", "job": {"name": "x\x1b[31m"}, "n": 1})


@contextmanager
def agent(path: Path, **answers):
    """A server at `path`; yields a file with a line for each call it got."""
    reading, writing = os.pipe()
    with (
        open(reading) as calls,
        forked(serve_for_ever, str(path), {**ANSWERS, **answers}, writing),
    ):
        os.close(writing)
        assert calls.readline() == "ready\n"
        yield calls


@contextmanager
def forked(work, *arguments):
    """A child process that does `work(*arguments)`, killed in the end."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def ctl_at(path: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """`miglet-ctl` with `arguments`, having found its socket in the environment."""
    return subprocess.run(
        [sys.executable, "-m", "miglet.ctl", *arguments],
        env={**os.environ, "MIGLET_SOCKET": str(path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=30,
        **options,
    )
