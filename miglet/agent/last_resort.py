"""What was not delivered goes, one line an event, to `shutdown.last_resort`.

The cloud keeps ``MIGLET-EVENT {json}`` on the console for a while; a file is for the
operator's log collection. A short-lived child writes: a serial line may block.
"""

from __future__ import annotations

import json
import os
import select
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from miglet.messages.facts import EventsWritten
from miglet.redaction import redact
from miglet.supervisor import systemd
from miglet.supervisor.children import ChildTask, by_name
from miglet.supervisor.queues import Queue

#: What each line begins with.
PREFIX = "MIGLET-EVENT "

#: Seconds that writing may take, and most bytes that are written.
TIMEOUT_SECONDS = 10.0
LIMIT_BYTES = 256 * 1024

CONSOLE = Path("/dev/console")

#: The unit of MIGlet has no devices (PrivateDevices=): a unit of its own writes.
ON_CONSOLE = (
    *("systemd-run", "--quiet", "--collect", "--pipe", "--wait"),
    *(f"--property=RuntimeMaxSec={TIMEOUT_SECONDS:g}s", "--unit=miglet-last-resort"),
    *("sh", "-c", f"exec cat >{CONSOLE}"),
)

#: The most important events first: a job's result comes before all else.
FIRST = ("JobCompleted", "JobStarted")


def writing_task(target: str, events: Sequence[dict[str, Any]]) -> ChildTask:
    """Write these events to `target`; EventsWritten is the result."""
    main = by_name(__name__, write_events.__name__, target, lines_of(events))
    failed = EventsWritten(0, f"{target} was not written to in time")
    return ChildTask("last-resort", main, TIMEOUT_SECONDS, failed)


def lines_of(events: Sequence[dict[str, Any]]) -> list[bytes]:
    """A line for each event, redacted, as far as they fit; job results first."""
    ranks = {kind: rank for rank, kind in enumerate(FIRST)}
    ordered = sorted(events, key=lambda event: ranks.get(event["type"], len(FIRST)))
    lines, room = [], LIMIT_BYTES
    for event in ordered:
        line = f"{PREFIX}{redact(json.dumps(event))}\n".encode()
        if len(line) <= room:
            lines.append(line)
            room -= len(line)
    return lines


def write_events(queue: Queue, target: str, lines: Sequence[bytes]) -> None:
    """In a child: write the lines, and report how many there were."""
    try:
        if target == "console":
            _write_to_console(b"".join(lines))
        else:
            _write_to_file(Path(target), b"".join(lines))
    except (OSError, systemd.CommandFailed) as error:
        queue.put(EventsWritten(0, f"{target}: {error}"))
    else:
        queue.put(EventsWritten(len(lines), ""))


def _write_to_console(text: bytes) -> None:
    if systemd.systemd_usable():
        systemd.order(ON_CONSOLE, TIMEOUT_SECONDS, text)
        return
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    _write(os.open(CONSOLE, flags), text)


def _write_to_file(path: Path, text: bytes) -> None:
    """Append to a regular file in a folder that nobody else can write to."""
    folder = os.stat(path.parent, follow_symlinks=False)
    if not stat.S_ISDIR(folder.st_mode):
        raise NotADirectoryError(f"{path.parent} is not a folder")
    if folder.st_uid not in (0, os.geteuid()) or folder.st_mode & 0o022:
        raise PermissionError(f"{path.parent} may be written to by others than root")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    _write(descriptor, text)


def _write(descriptor: int, text: bytes) -> None:
    """Write all of it, and close the descriptor; raises TimeoutError."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    try:
        while text:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError("it takes no more")
            text = text[os.write(descriptor, text[:4096]) :]
    finally:
        os.close(descriptor)
