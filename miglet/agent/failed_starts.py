"""Starts that fail alike are ever further apart: 1 s to 60 s.

How the last start failed is part of the machine's state in the journal. A start that
fails before there is a journal, or settings that say where it is, leaves a record in
the folder that the service manager provides.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from miglet.errors import (
    CRASH_LOOP,
    INTERNAL,
    UNAVAILABLE,
    MigletError,
    Misconfigured,
)
from miglet.formats import one_line, rfc3339, strict_json
from miglet.safefile import read_small
from miglet.supervisor.systemd import Notifier

#: Most seconds between two starts that fail alike.
LONGEST_DELAY = 60.0

#: Seconds between two signs of life for the service manager's watchdog, which watches
#: as soon as the service has announced that it is ready.
ALIVE_SECONDS = 1.0

#: The exit statuses after which the service manager starts MIGlet again.
RESTARTED = frozenset({INTERNAL, UNAVAILABLE, CRASH_LOOP})

#: The defaults of paths.state and paths.runtime. Their schema is not imported for
#: this: it would be in the memory of every process, 0.4 MB.
STATE_FOLDER = "/var/lib/miglet"
RUNTIME_FOLDER = "/run/miglet"

RECORD = "failed-start.json"
RECORD_BYTES = 4096

#: Characters of what a start failed of.
REASON_CHARACTERS = 300

log = logging.getLogger(__name__)


def start_delay(repeats: int) -> float:
    """Seconds to wait when the last start failed like so many before it."""
    return min(LONGEST_DELAY, 2.0 ** min(repeats - 1, 16)) if repeats else 0.0


def wait_before_start(notifier: Notifier, reason: str, repeats: int) -> None:
    """Let the delay pass, if there is one; the service manager shows why, how long.

    A signal ends the wait and the program: nothing has been started yet.
    """
    seconds = start_delay(repeats)
    if not seconds:
        return
    until = rfc3339(time.time() + seconds)
    line = f"waiting until {until}: {repeats + 1} starts failed: {reason}"
    log.warning("%s", line)
    notifier.ready(line)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        notifier.alive()
        select.select([], [], [], min(left, ALIVE_SECONDS))


class EarlyFailure(NamedTuple):
    """How a start failed before there was a journal."""

    boot_id: str
    #: What two failures that are alike have in common, and how the last one was put.
    code: str
    reason: str
    exit_status: int
    #: How many starts before it failed alike, one after the other.
    repeats: int


class EarlyFailures:
    """Records a start that fails in a `with` block before `passed` is called.

    `exempt` are errors that say nothing about the next start.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        boot_id: str,
        exempt: tuple[type[MigletError], ...] = (),
    ) -> None:
        self._paths = [folder / RECORD for folder in folders(environ)]
        self._boot_id = boot_id
        self._exempt = exempt
        self._passed = False
        #: How the start before this one failed, if it did and in this boot.
        self.last = self._read()

    def __enter__(self) -> EarlyFailures:
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        status = error.exit_status if isinstance(error, MigletError) else INTERNAL
        if not isinstance(error, Exception) or isinstance(error, self._exempt):
            return
        if status in RESTARTED and not self._passed:
            self._record(error, status)

    def passed(self) -> None:
        """From here on the journal knows how a start fails."""
        self._passed = True
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()

    def _read(self) -> EarlyFailure | None:
        for path in self._paths:
            try:
                last = EarlyFailure(**strict_json(read_small(path, RECORD_BYTES)))
            except (OSError, ValueError, TypeError):
                continue
            if last.boot_id == self._boot_id and type(last.repeats) is int:
                return last
        return None

    def _record(self, error: Exception, exit_status: int) -> None:
        last, code = self.last, type(error).__name__
        if isinstance(error, Misconfigured):
            code = error.faults[0].key or error.faults[0].source
        alike = last and (last.code, last.exit_status) == (code, exit_status)
        repeats = last.repeats + 1 if last and alike else 0
        reason = one_line(str(error).partition("\n")[0] or code)[:REASON_CHARACTERS]
        failure = EarlyFailure(self._boot_id, code, reason, exit_status, repeats)
        for path in self._paths:
            fresh = path.with_suffix(".new")
            try:
                fresh.write_text(json.dumps(failure._asdict()))
                fresh.replace(path)
                return
            except OSError as error:
                log.warning("%s cannot be written: %s", path, error.strerror)


def folders(environ: Mapping[str, str]) -> list[Path]:
    """The folders for state and at run time, as systemd names them, or the defaults.

    The settings may name others; a start that has none cannot know.
    """
    state = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return [Path(state or STATE_FOLDER), Path(runtime or RUNTIME_FOLDER)]
