"""One job as the Listener sees it: acquire, renew, start a Worker, wait, conclude.

Whatever the Worker reports, the line says `Canceled` after a local stop or a cancel by
the server (actions/runner JobDispatcher.cs).
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from tests.runner_double import channel, mailbox, registry
from tests.runner_double.console import emit, stamp
from tests.runner_double.host import RESULTS, truthy
from tests.runner_double.invocation import DRAIN_SECONDS, exit_code
from tests.runner_double.job_message import identify
from tests.runner_double.job_runner import report

if TYPE_CHECKING:
    from tests.runner_double.listener import Listener

RENEWAL_SECONDS = 60.0
#: A server's cancel gives at least so long, and the Worker is killed so much earlier.
LEAST_CANCEL_SECONDS = 60.0
KILL_MARGIN_SECONDS = 15.0
ABANDONED_SECONDS = 90.0
CRASHED = (
    "indicate worker encounter an unhandled exception or app crash, attach worker"
    " stdout/stderr to JobRequest result."
)


class Dispatcher:
    """Runs one job for `listener`."""

    def __init__(self, listener: Listener, job: dict[str, Any]) -> None:
        self._listener = listener
        self._host = listener.host
        self._job = identify(job, registry.next_job(listener.host.root))
        self._worker: subprocess.Popen[bytes] | None = None
        self._channel = -1
        self._stop_told = False
        #: Whether all of the Worker's output has been read.
        self._drained = False
        self._cancelled_as: str | None = None

    def acquire(self) -> None:
        """From the message to the acquired job; a stop here drops the message."""
        host, job = self._host, self._job
        host.tell("message_received", name=job["name"], job_id=job["job_id"])
        host.count("MessageReceived_RunnerJobRequest")
        host.trace.write(
            "BrokerMessageListener",
            f"Message '{job['request_id']}' received from session 'double'.",
        )
        host.trace.write(
            "BrokerMessageListener", f"Acknowledging runner request '{job['job_id']}'."
        )
        self._listener.pause(0.5)

    def skip(self) -> None:
        """The ghost's case: somebody else has the job, or nobody."""
        self._host.trace.write(
            "Runner",
            "Skipping message Job. Job message already acquired"
            f" '{self._job['job_id']}'.",
        )
        name = self._host.settings().get("agentname", "")
        registry.strike(self._host.root, name, "consumed")
        self._host.tell("ghost")

    def run(self) -> str | None:
        """The result as printed; None if there is no line about it."""
        host, job = self._host, self._job
        host.trace.write(
            "JobDispatcher",
            f"Job request {job['request_id']} for plan {job['plan_id']}"
            f" job {job['job_id']} received.",
        )
        host.tell("running_job", name=job["name"], job_id=job["job_id"])
        host.terminal.line(f"{stamp()}: Running job: {job['name']}")
        if job.get("lost"):
            self._listener.pause(45.0)
            return None
        self._listener.pause(0.3)
        self._renew()
        self._start_worker()
        self._wait()
        return self._conclude()

    def _renew(self) -> None:
        job = self._job
        if self._worker and self._worker.poll() is not None:
            return
        self._host.count(f"JobRequestRenewed_{job['request_id']}")
        self._host.trace.write(
            "JobDispatcher",
            f"Successfully renew job {job['job_id']}, job is valid till {stamp()}",
        )
        self._host.ears.after(self._host.plan.scaled(RENEWAL_SECONDS), self._renew)

    def _start_worker(self) -> None:
        host = self._host
        bin_folder = host.root / "bin"
        host.count("StartingWorkerProcess")
        reading, self._channel = os.pipe()
        answers, writing = os.pipe()
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
        self._forward_output(self._worker)
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
                self._host.ears.forget(source)
            elif shown:
                emit(1, chunk)

        self._host.ears.listen(source, read)

    def _wait(self) -> None:
        """Wait for the Worker without a limit, passing on what happens meanwhile."""
        assert self._worker is not None
        worker, ears = self._worker, self._host.ears
        ended = os.pidfd_open(worker.pid)
        ears.listen(ended, lambda: ears.forget(ended))
        if self._job.get("renewal_fails"):
            ears.after(self._host.plan.scaled(ABANDONED_SECONDS), self._abandon)
        while worker.poll() is None:
            self._mind_orders()
            ears.hear()
        ears.forget(ended)
        os.close(ended)
        os.close(self._channel)
        ears.until(lambda: self._drained, self._host.plan.scaled(DRAIN_SECONDS))

    def _mind_orders(self) -> None:
        if self._listener.stopping and not self._stop_told:
            self._stop_told = True
            self._cancelled_as = "Canceled"
            channel.send(self._channel, "RunnerShutdown")
        order = mailbox.take(self._host.root, "mail", {"cancel"})
        if order and not self._cancelled_as:
            self._host.count("MessageReceived_JobCancellation")
            self._cancel("Canceled", order.get("timeout", 300.0))

    def _abandon(self) -> None:
        self._host.count("JobRenewReachLimit")
        self._cancel("Abandoned", LEAST_CANCEL_SECONDS)

    def _cancel(self, as_result: str, timeout: float) -> None:
        self._cancelled_as = as_result
        channel.send(self._channel, "CancelRequest")
        limit = max(LEAST_CANCEL_SECONDS, timeout) - KILL_MARGIN_SECONDS
        self._host.ears.after(self._host.plan.scaled(limit), self._kill)

    def _kill(self) -> None:
        if self._worker and self._worker.poll() is None:
            self._worker.send_signal(signal.SIGKILL)

    def _conclude(self) -> str:
        """Judge the exit code, print the result."""
        assert self._worker is not None
        job, trace = self._job, self._host.trace
        code = exit_code(self._worker.returncode)
        self._host.tell("worker_gone", code=code, worker=self._worker.pid)
        trace.write(
            "JobDispatcher", f"Worker finished for job {job['job_id']}. Code: {code}"
        )
        result = self._result(code)
        trace.write(
            "JobDispatcher",
            f"finish job request for job {job['job_id']} with result: {result}",
        )
        self._host.tell("result", name=job["name"], job_id=job["job_id"], result=result)
        self._host.terminal.line(
            f"{stamp()}: Job {job['name']} completed with result: {result}"
        )
        return result

    def _result(self, code: int) -> str:
        known = 100 <= code < 100 + len(RESULTS)
        if not known:
            self._host.trace.write("JobDispatcher", f"Return code {code} {CRASHED}")
            report(self._host, self._job, self._cancelled_as or "Failed")
        if self._cancelled_as:
            return self._cancelled_as
        return RESULTS[code - 100] if known else "Failed"
