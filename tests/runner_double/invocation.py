"""A process that the Worker runs for a step or a hook, and how it is cancelled.

Its output goes to the job log. Cancelling is SIGINT, 7.5 s, SIGTERM, 2.5 s, SIGKILL,
each to that one process only (actions/runner ProcessInvoker.cs).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.runner_double.host import Host

INTERRUPT_SECONDS = 7.5
TERMINATE_SECONDS = 2.5
#: How long output is awaited that a child left behind may still hold open.
DRAIN_SECONDS = 5.0
OOM_SCORE = "500"


def exit_code(status: int) -> int:
    """A shell's view of a return code: 128 + N for signal N."""
    return 128 - status if status < 0 else status


class Invocation:
    """One run of one program."""

    def __init__(
        self, host: Host, argv: list[str], env: dict[str, str], cwd: Path
    ) -> None:
        self._host = host
        self._cancelled = False
        self._open = True
        self._process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self._score()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, sink: Callable[[bytes], None]) -> int:
        """Its exit code, when it has ended and its output was read into `sink`."""
        ears = self._host.ears
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        ended = os.pidfd_open(self.pid)

        def read() -> None:
            chunk = os.read(output, 65536)
            self._open = bool(chunk)
            sink(chunk)
            if not chunk:
                ears.forget(output)

        ears.listen(output, read)
        ears.listen(ended, lambda: ears.forget(ended))
        ears.until(lambda: self._process.poll() is not None, None)
        ears.until(lambda: not self._open, self._host.plan.scaled(DRAIN_SECONDS))
        ears.forget(output)
        ears.forget(ended)
        os.close(ended)
        return exit_code(self._process.returncode)

    def cancel(self) -> None:
        """Ask it, urge it, end it; only once."""
        if self._cancelled:
            return
        self._cancelled = True
        scaled = self._host.plan.scaled
        terminate = scaled(INTERRUPT_SECONDS)
        self._signal(signal.SIGINT)
        self._host.ears.after(terminate, lambda: self._signal(signal.SIGTERM))
        kill = terminate + scaled(TERMINATE_SECONDS)
        self._host.ears.after(kill, lambda: self._signal(signal.SIGKILL))

    def _signal(self, signum: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signum)

    def _score(self) -> None:
        score = os.environ.get("PIPELINE_JOB_OOMSCOREADJ", OOM_SCORE)
        try:
            Path(f"/proc/{self.pid}/oom_score_adj").write_text(score)
        except OSError:  # it has ended already, or may not be changed
            self._host.trace.write("ProcessInvokerWrapper", "Fail to set score", "WARN")
