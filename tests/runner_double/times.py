"""How long things take with the official runner, in seconds.

The middle of what was measured with 2.336.0 on two cores. A plan's `scale` multiplies
every one of them: 1 for a demonstration or a benchmark, less in tests.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple


class Times(NamedTuple):
    """The times of one flow: how the runner talks to the service."""

    #: All of config.sh.
    configure: float
    #: From the Listener's start to `Connected to GitHub`, and to `Listening for Jobs`.
    connected: float
    listening: float
    #: From the job's message to `Running job`.
    acquire: float
    #: From the Worker's start to its log, and to the job's message in it.
    worker_log: float
    job_message: float
    #: From the job's message to the first step, and from the last one to its report.
    set_up: float
    complete: float
    #: From a killed Worker's end to the line with the job's result.
    crash_report: float


#: GitHub's own flow: a broker and a run service (`useV2Flow`).
BROKER = Times(
    configure=0.75,
    connected=0.31,
    listening=0.47,
    acquire=0.14,
    worker_log=0.23,
    job_message=0.59,
    set_up=0.15,
    complete=0.8,
    crash_report=0.03,
)
#: The older flow, of GitHub Enterprise Server.
PIPELINES = Times(
    configure=3.0,
    connected=1.35,
    listening=1.4,
    acquire=0.13,
    worker_log=0.23,
    job_message=0.65,
    set_up=1.6,
    complete=1.4,
    crash_report=0.83,
)

#: From the Worker's end to the line with its result, where nothing has to be reported.
RESULT = 0.01
#: From the result's line to the session's end, and from there to the Listener's end.
DELETE_SESSION = 0.03
EXIT = 0.04
#: From the report to the Worker's end.
WORKER_EXIT = 0.01
RENEWAL = 60.0
#: How long the Worker tries to report a job's result before it gives up.
COMPLETION_TRIES = 272.0
#: When a job is given up whose lock cannot be renewed any more, from its start.
ABANDONED = 110.0
#: Between two tries of a request that the service refuses (5 to 15 s).
BACK_OFF = 10.0
REQUEST_TRIES = 5


def process_age() -> float:
    """Seconds since this process was started, proc_pid_stat(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
