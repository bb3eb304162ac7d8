"""One job as the Listener sees it: acquire, renew, start a Worker, wait, conclude.

Whatever the Worker reports, the line says `Canceled` after a local stop or a cancel by
the server (actions/runner JobDispatcher.cs).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from tests.runner_double import channel, mailbox, registry, times
from tests.runner_double.console import emit, stamp
from tests.runner_double.host import RESULTS, truthy
from tests.runner_double.invocation import (
    DRAIN_SECONDS,
    exit_code,
    log_end,
    log_start,
)
from tests.runner_double.job_message import identify
from tests.runner_double.job_runner import report

if TYPE_CHECKING:
    from tests.runner_double.listener import Listener

#: What a cancel gives a job unless the service says otherwise, what it gives at least,
#: and how much earlier the Worker is killed.
CANCEL_SECONDS = 300.0
LEAST_CANCEL_SECONDS = 60.0
KILL_MARGIN_SECONDS = 15.0
SERVER_ERROR = "Internal Server Error"
CRASHED = (
    "indicate worker encounter an unhandled exception or app crash, attach worker"
    " stdout/stderr to JobRequest result."
)
NOT_REGISTERED = (
    "The runner no longer exists on the server. Cleaning up local configuration."
)
NO_REGISTRATION = (
    "Runner registration no longer exists while retrieving messages. Exception of type"
    " 'GitHub.Services.WebApi.RunnerNotFoundException' was thrown."
)


class Dispatcher:
    """Runs one job for `listener`."""

    def __init__(self, listener: Listener, job: dict[str, Any]) -> None:
        self._listener = listener
        self._host = listener.host
        self._broker = self._host.plan.uses_broker
        number = registry.next_job(self._host.root)
        self._job = identify(job, number, self._broker)
        self._worker: subprocess.Popen[bytes] | None = None
        self._worker_started = 0.0
        self._channel = -1
        self._shutdown_sent = False
        #: Whether all of the Worker's output has been read.
        self._drained = False
        #: The result that a stop or a cancel has decided.
        self._cancelled_as: str | None = None
        #: Whether the service has removed the runner meanwhile.
        self.registration_gone = False

    def announce(self) -> None:
        """The job's message has arrived; with the broker it is acknowledged."""
        host, job = self._host, self._job
        host.record("message_received", name=job["name"], job_id=job["job_id"])
        kind = "RunnerJobRequest" if self._broker else "PipelineAgentJobRequest"
        host.count(f"MessageReceived_{kind}")
        if self._broker:
            host.trace.write(
                self._listener.session.source,
                f"Acknowledging runner request '{job['job_id']}'.",
            )
            host.call("acknowledge")
        else:
            host.trace.write(
                self._listener.session.source,
                f"Message '{time.monotonic_ns() // 1_000_000}' received from session"
                f" '{job['plan_id']}'.",
            )

    def acquire(self) -> None:
        """From the message to the acquired job; a stop here drops the message."""
        self.announce()
        self._listener.pause(self._host.plan.times.acquire)
        if self._broker:
            self._host.call("acquire")

    def fail_to_acquire(self) -> None:
        """The service says that somebody else has the job, again and again."""
        for left in range(times.REQUEST_TRIES - 1, -1, -1):
            self._host.call("acquire", status=409)
            log_refusal(self._listener, "get job message", "Conflict", left)
            if left:
                self._listener.pause(times.BACK_OFF)
        self._host.trace.write(
            "Runner",
            "Skipping message Job. Job message already acquired"
            f" '{self._job['job_id']}'.",
        )
        name = self._host.settings().get("agentname", "")
        registry.drop(self._host.root, name, "consumed")
        self._host.record("ghost")

    def find_no_job(self) -> None:
        """The service does not know the request that is acknowledged."""
        self._host.trace.write(
            "Runner",
            "Acknowledge returned job-not-found for ephemeral runner request"
            f" '{self._job['job_id']}'. Exiting runner.",
        )

    def run(self) -> str | None:
        """The result as printed; None if there is no line about it."""
        host, job = self._host, self._job
        host.trace.write(
            "JobDispatcher",
            f"Job request {job['request_id']} for plan {job['plan_id']}"
            f" job {job['job_id']} received.",
        )
        host.record("running_job", name=job["name"], job_id=job["job_id"])
        host.terminal.line(f"{stamp()}: Running job: {job['name']}")
        if job.get("lost"):
            self._listener.pause(45.0)
            return None
        self._fail_first_renewals()
        self._renew()
        if not self._broker:
            host.call("message-deleted")
        self._start_worker()
        self._wait()
        return self._conclude()

    def _fail_first_renewals(self) -> None:
        """No Worker is started while the very first renewal fails."""
        until = self._job.get("first_renewal_fails", 0)
        if not until:
            return
        ends = None if until is True else time.monotonic() + until
        while ends is None or time.monotonic() < ends:
            for left in range(times.REQUEST_TRIES - 1, -1, -1):
                self._fail_renewal(left)
                self._listener.pause(times.BACK_OFF)
            self._host.trace.write(
                "JobDispatcher",
                f"Retrying lock renewal for job {self._job['job_id']}. The first job"
                " renew request has failed.",
            )

    def _fail_renewal(self, left: int) -> None:
        """One renewal that the service refuses; so many tries are left."""
        self._host.call("renew", status=500)
        if left:
            log_refusal(self._listener, "renew job", SERVER_ERROR, left)
            return
        trace = self._host.trace
        trace.write(
            "JobDispatcher",
            f"Catch exception during renew runner job {self._job['job_id']}.",
            "ERR",
        )
        trace.write("JobDispatcher", failure("renew job", SERVER_ERROR), "ERR")

    def _fail_renewals(self, left: int = times.REQUEST_TRIES - 1) -> None:
        """The lock cannot be renewed any more: after the last try the job is given up.

        The tries end as long after the job's start as was measured.
        """
        if self._worker is None or self._worker.poll() is not None:
            return
        self._fail_renewal(left)
        if left:
            again = (times.ABANDONED - times.RENEWAL) / (times.REQUEST_TRIES - 1)
            self._host.loop.call_later(
                self._host.plan.scaled(again), lambda: self._fail_renewals(left - 1)
            )
        else:
            self._host.count("JobRenewReachLimit")
            self._cancel("Abandoned", LEAST_CANCEL_SECONDS)

    def _renew(self) -> None:
        job = self._job
        if self._worker and self._worker.poll() is not None:
            return
        self._host.count(f"JobRequestRenewed_{job['request_id']}")
        renewed = (
            f"job {job['job_id']}"
            if self._broker
            else f"job request {job['request_id']}"
        )
        self._host.call("renew")
        self._host.trace.write(
            "JobDispatcher",
            f"Successfully renew {renewed}, job is valid till {stamp()}",
        )
        following = self._fail_renewals if job.get("renewal_fails") else self._renew
        self._host.loop.call_later(self._host.plan.scaled(times.RENEWAL), following)

    def _start_worker(self) -> None:
        host = self._host
        bin_folder = host.root / "bin"
        host.count("StartingWorkerProcess")
        reading, self._channel = os.pipe()
        answers, writing = os.pipe()
        self._worker_started = time.monotonic()
        self._worker = subprocess.Popen(
            [bin_folder / "Runner.Worker", "spawnclient", str(reading), str(writing)],
            cwd=bin_folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(reading, writing),
            bufsize=0,
        )
        for end in (reading, writing, answers):
            os.close(end)
        log_start(
            host.trace,
            str(bin_folder / "Runner.Worker"),
            f"spawnclient {reading} {writing}",
            self._worker.pid,
        )
        self._forward_output(self._worker)
        host.trace.write(
            "JobDispatcher",
            f"Send job request message to worker for job {self._job['job_id']}.",
        )
        host.count(f"RunnerSendingJobToWorker_{self._job['job_id']}")
        channel.send(self._channel, "NewJobRequest", job=self._job)
        host.count(f"SentJobToWorker_{self._job['request_id']}")

    def _forward_output(self, worker: subprocess.Popen[bytes]) -> None:
        """Read the Worker's output; it is shown only when the log is to be printed."""
        assert worker.stdout is not None
        source = worker.stdout.fileno()
        shown = truthy(os.environ.get("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT"))

        def read() -> None:
            chunk = os.read(source, 65536)
            if not chunk:
                self._drained = True
                self._host.loop.remove_reader(source)
            elif shown:
                emit(1, chunk)

        self._host.loop.add_reader(source, read)

    def _wait(self) -> None:
        """Wait for the Worker without a limit, passing on what happens meanwhile."""
        assert self._worker is not None
        worker, loop = self._worker, self._host.loop
        ended = os.pidfd_open(worker.pid)
        loop.add_reader(ended, lambda: loop.remove_reader(ended))
        while worker.poll() is None:
            self._handle_messages()
            loop.run_once()
        loop.remove_reader(ended)
        os.close(ended)
        os.close(self._channel)
        loop.run_until(lambda: self._drained, self._host.plan.scaled(DRAIN_SECONDS))

    def _handle_messages(self) -> None:
        if self._listener.stopping and not self._shutdown_sent:
            self._shutdown_sent = True
            self._cancelled_as = "Canceled"
            self._log_cancellation()
            channel.send(self._channel, "RunnerShutdown")
        order = mailbox.take(self._host.root, "mail", {"cancel", "deleted"})
        if order is None or self._cancelled_as:
            return
        if order["kind"] == "deleted":
            self.registration_gone = True
            lose_registration(self._listener)
            self._cancel("Canceled", CANCEL_SECONDS)
        else:
            self._host.count("MessageReceived_JobCancellation")
            if not self._broker:
                self._host.call("message-deleted")
            self._host.trace.write(
                "JobDispatcher",
                f"Job cancellation request {self._job['job_id']} received, cancellation"
                " timeout 5 minutes.",
            )
            self._cancel("Canceled", order.get("timeout", CANCEL_SECONDS))

    def _cancel(self, as_result: str, timeout: float) -> None:
        self._cancelled_as = as_result
        self._log_cancellation()
        channel.send(self._channel, "CancelRequest")
        limit = max(LEAST_CANCEL_SECONDS, timeout) - KILL_MARGIN_SECONDS
        self._host.loop.call_later(self._host.plan.scaled(limit), self._kill)

    def _log_cancellation(self) -> None:
        self._host.trace.write(
            "JobDispatcher",
            f"Send job cancellation message to worker for job {self._job['job_id']}.",
        )

    def _kill(self) -> None:
        if self._worker and self._worker.poll() is None:
            self._worker.send_signal(signal.SIGKILL)

    def _conclude(self) -> str:
        """Judge the exit code, print the result."""
        assert self._worker is not None
        job, trace = self._job, self._host.trace
        code = exit_code(self._worker.returncode)
        self._host.record("worker_gone", code=code, worker=self._worker.pid)
        log_end(trace, self._worker.pid, code, self._worker_started)
        result = self._result(code)
        trace.write(
            "JobDispatcher",
            f"finish job request for job {job['job_id']} with result: {result}",
        )
        fields = {"name": job["name"], "job_id": job["job_id"], "result": result}
        self._host.record("result", **fields)
        self._host.terminal.line(
            f"{stamp()}: Job {job['name']} completed with result: {result}"
        )
        return result

    def _result(self, code: int) -> str:
        """What is printed; the log has the Worker's code unless a cancel decided."""
        if self._cancelled_as:
            return self._cancelled_as
        trace = self._host.trace
        trace.write(
            "JobDispatcher",
            f"Worker finished for job {self._job['job_id']}. Code: {code}",
        )
        if 100 <= code < 100 + len(RESULTS):
            self._host.rest(times.RESULT)
            return RESULTS[code - 100]
        trace.write("JobDispatcher", f"Return code {code} {CRASHED}")
        self._host.rest(self._host.plan.times.crash_report)
        if self._broker:
            report(self._host, self._job, "Failed", by="listener")
        else:
            trace.write(
                "JobDispatcher",
                "Fail to report unhandled exception from Runner.Worker process",
                "ERR",
            )
        return "Failed"


def lose_registration(listener: Listener) -> None:
    """What a poll that finds no runner of this name any more says."""
    host = listener.host
    registry.drop(host.root, host.settings().get("agentname", ""), "deleted")
    host.trace.write("Runner", NO_REGISTRATION)
    host.terminal.error(NOT_REGISTERED)


def failure(request: str, reason: str) -> str:
    """The exception of a request that is refused, as logs show it."""
    return f"System.Exception: Failed to {request}: Error: {reason}."


def log_refusal(listener: Listener, request: str, reason: str, left: int) -> None:
    """How the log tells of one refused request to the run service."""
    trace = listener.host.trace
    trace.write("RunServer", "Catch exception during request", "ERR")
    trace.write("RunServer", failure(request, reason), "ERR")
    if left:
        trace.write(
            "RunServer",
            f"Back off {times.BACK_OFF:.3f} seconds before next retry."
            f" {left} attempt left.",
            "WARN",
        )
