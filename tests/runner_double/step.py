"""The work of a job's step: use the machine as the plan says, then end with a code.

This runs in the step's own process, below the Worker.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.runner_double import mailbox, truth
from tests.runner_double.console import emit
from tests.runner_double.event_loop import EventLoop, open_wakeup

MEGABYTE = 1024 * 1024


def leave_process(how: object) -> None:
    """Exit a process behind; `setsid`: in its own session, `untracked`: unmarked."""
    environment = dict(os.environ)
    if how == "untracked":
        environment["RUNNER_TRACKING_ID"] = "0"
    subprocess.Popen(
        ["sleep", "600"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=how in ("setsid", "untracked"),
    )


def burn(seconds: float) -> None:
    """Use so much processor time."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def store(megabytes: int) -> None:
    """Write so much to a file in the workspace, down to the disk."""
    with open("written.bin", "wb") as target:
        for _ in range(megabytes):
            target.write(os.urandom(MEGABYTE))
        target.flush()
        os.fsync(target.fileno())


def await_permit(root: Path) -> int | None:
    """Wait until the test finishes this step; the code it asks for, if it does."""
    loop = EventLoop()
    wakeup = open_wakeup(loop, root)
    permits: list[dict[str, Any]] = []
    waits = False

    def permitted() -> bool:
        nonlocal waits
        found = mailbox.take(root, "finished")
        permits.extend([found] if found else [])
        if not permits and not waits:
            # From here on nothing below `root` is looked at until somebody wakes us.
            waits = True
            truth.record(root, "step_waits")
        return bool(permits)

    loop.run_until(permitted, None)
    wakeup.unlink()
    return permits[0].get("code")


def work(root_path: str, wishes: dict[str, Any]) -> int:
    """Do the step; the code it exits with."""
    root = Path(root_path)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    truth.record(root, "step_start", name=wishes.get("name"))
    emit(1, wishes.get("output", "Hello from the step\n").encode())
    if wishes.get("leave_process"):
        leave_process(wishes["leave_process"])
    ballast = os.urandom(MEGABYTE) * wishes.get("allocate_mb", 0)
    burn(wishes.get("burn_cpu", 0.0))
    store(wishes.get("write_mb", 0))
    # After the work, so that what it holds is held so long on a busy machine as well.
    select.select([], [], [], wishes.get("seconds", 0.0))
    asked = await_permit(root) if wishes.get("hold") else None
    del ballast
    truth.record(root, "step_end", name=wishes.get("name"))
    return wishes.get("code", 0) if asked is None else asked
