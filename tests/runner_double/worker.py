"""`bin/Runner.Worker spawnclient FD FD`: runs one job and exits with 100 + its result.

SIGINT is ignored, SIGTERM shuts the job down; the end of the Listener stops nothing.
"""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.runner_double import channel
from tests.runner_double.host import RESULTS, Exit, Host, root_of
from tests.runner_double.job_message import message, secrets_of
from tests.runner_double.job_runner import JobRunner

#: How long the Worker waits for its job, and how long it lives after a SIGTERM.
CHANNEL_SECONDS = 30.0
TERMINATED = 143


class Worker:
    """One Worker process."""

    def __init__(self, host: Host, source: int) -> None:
        self._host = host
        self._source = source
        self._job: dict[str, Any] | None = None
        self._runner: JobRunner | None = None
        #: `server` or `shutdown` if the job is to end before it has begun.
        self._cancelled_by: str | None = None
        host.loop.on_signals(
            {signal.SIGINT: self._ignore_interrupt, signal.SIGTERM: self._terminate}
        )
        host.loop.add_reader(source, self._read)

    def run(self) -> int:
        """Take the job, run it; the exit code."""
        host = self._host
        arrived = host.loop.run_until(
            lambda: self._job, host.plan.scaled(CHANNEL_SECONDS) + 1.0
        )
        if not arrived or self._job is None:
            return 1
        self._hang_at("start")
        host.rest_until_age(host.plan.times.worker_log)
        host.count("WorkerProcessStarted")
        host.count("WorkerWaitingForJobMessage")
        host.trace.write("Worker", f"Version: {host.version}")
        host.trace.write(
            "Worker", "Waiting to receive the job message from the channel."
        )
        self._hang_at("channel")
        host.rest_until_age(host.plan.times.job_message)
        self._log_job(self._job)
        self._runner = JobRunner(host, self._job)
        if self._cancelled_by:
            self._runner.cancel(self._cancelled_by)
        return 100 + RESULTS.index(self._runner.run())

    def _hang_at(self, stage: str) -> None:
        """Stop for ever if the job says so: before the log, or before the message."""
        assert self._job is not None
        if self._job.get("hangs") == stage:
            self._host.record("worker_hangs", stage=stage)
            self._host.loop.run_forever()

    def _log_job(self, job: dict[str, Any]) -> None:
        host = self._host
        request = job["request_id"]
        host.count(f"WorkerJobMessageReceived_{request}")
        host.count(f"WorkerJobServerQueueStarted_{request}")
        host.trace.write("Worker", "Message received.")
        host.trace.secrets = secrets_of(job)
        text = json.dumps(message(job), indent=2, ensure_ascii=False)
        host.record("job_message", job_id=job["job_id"], name=job["name"])
        host.trace.write("Worker", f"Job message:\n {text}")
        host.trace.write("JobRunner", f"Job ID {job['job_id']}")

    def _read(self) -> None:
        packet = channel.receive(self._source)
        if packet is None:
            self._host.loop.remove_reader(self._source)
        elif packet["type"] == "NewJobRequest":
            self._job = packet["job"]
        else:
            by = "server" if packet["type"] == "CancelRequest" else "shutdown"
            self._cancel(by)

    def _cancel(self, by: str) -> None:
        if self._cancelled_by != "shutdown":
            self._cancelled_by = by
        if self._runner:
            self._runner.cancel(by)

    def _ignore_interrupt(self) -> None:
        self._host.record("signal", process="worker", signal="INT")

    def _terminate(self) -> None:
        self._host.record("signal", process="worker", signal="TERM")
        self._host.loop.call_later(
            self._host.plan.scaled(CHANNEL_SECONDS), self._give_up
        )
        self._cancel("shutdown")

    def _give_up(self) -> None:
        raise Exit(TERMINATED)


def main(script: str, arguments: list[str]) -> int:
    """Play the Worker; its exit code."""
    host = Host(root_of(script), "Worker")
    host.record("worker_start", argv=arguments)
    try:
        code = Worker(host, int(arguments[1])).run()
    except Exit as exit:
        code = exit.code
    host.record("worker_exit", code=code)
    return code
