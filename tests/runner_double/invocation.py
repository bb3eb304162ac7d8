"""A process that the Worker runs for a step or a hook, and how it is cancelled.

Its output goes to the job log. Cancelling is SIGINT, 7.5 s, SIGTERM, 2.5 s, SIGKILL,
each to that one process only (actions/runner ProcessInvoker.cs).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from tests.runner_double.console import Trace
from tests.runner_double.host import Host

INTERRUPT_SECONDS = 7.5
TERMINATE_SECONDS = 2.5
#: How long output is awaited that a child left behind may still hold open.
DRAIN_SECONDS = 5.0
OOM_SCORE = "500"


def exit_code(status: int) -> int:
    """A shell's view of a return code: 128 + N for signal N."""
    return 128 - status if status < 0 else status


def offer_to_oom_killer() -> None:
    """Have the kernel end this process, and not the runner, when memory runs out.

    The official runner does it from outside, just after the start; done here no child
    can be quicker.
    """
    score = os.environ.get("PIPELINE_JOB_OOMSCOREADJ", OOM_SCORE)
    with contextlib.suppress(OSError):  # not allowed
        Path("/proc/self/oom_score_adj").write_text(score)


def log_start(trace: Trace, program: str, arguments: str, pid: int) -> None:
    """How a log tells of a process that has been started."""
    for text in (
        "Starting process:",
        f"  File name: '{program}'",
        f"  Arguments: '{arguments}'",
        f"Process started with process id {pid}, waiting for process exit.",
    ):
        trace.write("ProcessInvokerWrapper", text)


def log_end(trace: Trace, pid: int, code: int, started: float) -> None:
    """How a log tells of a process that has ended; `started` is monotonic."""
    took = datetime.min + timedelta(seconds=time.monotonic() - started)
    trace.write(
        "ProcessInvokerWrapper",
        f"Finished process {pid} with exit code {code}, and elapsed time"
        f" {took:%H:%M:%S.%f}0.",
    )


class Invocation:
    """One run of one program."""

    def __init__(
        self, host: Host, argv: list[str], env: dict[str, str], cwd: Path
    ) -> None:
        self._host = host
        self._cancelled = False
        self._open = True
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            preexec_fn=offer_to_oom_killer,
        )
        log_start(host.trace, argv[0], " ".join(argv[1:]), self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, sink: Callable[[bytes], None]) -> int:
        """Its exit code, when it has ended and its output was read into `sink`."""
        loop = self._host.loop
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        ended = os.pidfd_open(self.pid)

        def read() -> None:
            chunk = os.read(output, 65536)
            self._open = bool(chunk)
            sink(chunk)
            if not chunk:
                loop.remove_reader(output)

        loop.add_reader(output, read)
        loop.add_reader(ended, lambda: loop.remove_reader(ended))
        loop.run_until(lambda: self._process.poll() is not None, None)
        loop.run_until(lambda: not self._open, self._host.plan.scaled(DRAIN_SECONDS))
        loop.remove_reader(output)
        loop.remove_reader(ended)
        os.close(ended)
        code = exit_code(self._process.returncode)
        log_end(self._host.trace, self.pid, code, self._started)
        return code

    def cancel(self) -> None:
        """Ask it, urge it, end it; only once."""
        if self._cancelled:
            return
        self._cancelled = True
        scaled = self._host.plan.scaled
        terminate = scaled(INTERRUPT_SECONDS)
        self._signal(signal.SIGINT)
        self._host.loop.call_later(terminate, lambda: self._signal(signal.SIGTERM))
        kill = terminate + scaled(TERMINATE_SECONDS)
        self._host.loop.call_later(kill, lambda: self._signal(signal.SIGKILL))

    def _signal(self, signum: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signum)
