"""What is tried in a forked child, since it cannot be undone."""

from __future__ import annotations

import os
from collections.abc import Callable


def exit_status_of(work: Callable[[], bool]) -> int:
    """The exit status of a forked child that does `work`: 0 where it returns true."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
