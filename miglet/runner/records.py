"""The records in a run's folder, as MIGlet reads them.

The shim writes `run.json`, `exit.json`, `worker.json` and `worker-exit.json`, the
recorder of a transient unit `stop.json`. Each appears complete or not at all; a record
that cannot be read counts as absent.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from miglet.messages.codec import Value, frozen_value

#: A record is far smaller; a larger file is none.
RECORD_LIMIT_BYTES = 1 << 20

#: Why an exit status is not known.
SHIM_LOST = "its shim was killed before it could record the exit status"


@frozen_value
class ExitStatus(Value):
    """How a process ended, and what it and its descendants had used."""

    #: What it exited with; None when a signal ended it, or when it is not known.
    exit_code: int | None
    signal: int | None
    #: Wall time.
    ended_at: float
    cpu_seconds: float | None = None
    #: The largest resident set of any single process (getrusage(2)).
    max_memory_bytes: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    #: Why nothing is known, when neither exit code nor signal is.
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether anybody collected the exit status."""
        return self.exit_code is not None or self.signal is not None

    @property
    def shell_code(self) -> int | None:
        """The exit code as a shell reports it: 128 and the number of the signal."""
        return 128 + self.signal if self.signal is not None else self.exit_code


STATUS_KEYS = frozenset(ExitStatus.__dataclass_fields__)

#: Those that a unit's record has, too.
UNIT_KEYS = frozenset({"ended_at", "cpu_seconds", "io_read_bytes", "io_write_bytes"})


def recorded_exit(path: Path) -> ExitStatus | None:
    """The exit status in the shim's record at `path`; None where there is none."""
    return exit_status_of(read_record(path) or {})


def exit_status_of(record: dict[str, Any]) -> ExitStatus | None:
    """The exit status in a record of the shim; None where it has none."""
    try:
        return ExitStatus(**only(record, STATUS_KEYS))
    except TypeError:
        return None


def unknown_exit(folder: Path) -> ExitStatus:
    """The exit status that nobody collected, with what the unit's record has."""
    record = unit_record(folder)
    result = record.get("result")
    reason = f"{SHIM_LOST} (systemd: {result})" if result else SHIM_LOST
    used = {"ended_at": time.time(), **only(record, UNIT_KEYS)}
    return ExitStatus(None, None, **used, reason=reason)


def unit_record(folder: Path) -> dict[str, Any]:
    """What the recorder wrote when the whole unit had ended; empty before."""
    return read_record(folder / "stop.json") or {}


def only(record: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    """The fields of the record that we know."""
    return {key: record[key] for key in record if key in keys}


def read_record(path: Path) -> dict[str, Any] | None:
    """The record at `path`; None when there is none that can be read."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(RECORD_LIMIT_BYTES))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def discard(folder: Path) -> None:
    """Remove `folder` so that no half of it can be taken for a run."""
    doomed = folder.with_name(f"{folder.name}.forgotten")
    shutil.rmtree(doomed, ignore_errors=True)
    if folder.exists():
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def tail(path: Path, limit_bytes: int) -> bytes:
    """The last bytes of a file; empty when it does not exist."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit_bytes))
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""
