"""How a launched program ended, as it is recorded in the folder of its run.

The shim records it in `exit.json`; where the shim was killed, a transient unit's
recorder still tells in `stop.json` what was used.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miglet.runner.records import read_record

#: Why an end is not known.
KEEPER_LOST = "its keeper was killed before it could record the end"


@dataclass(frozen=True)
class ExitStatus:
    """How a launched program ended, and what it and its descendants had used."""

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
        """Whether anybody saw how it ended."""
        return self.exit_code is not None or self.signal is not None

    @property
    def shell_code(self) -> int | None:
        """The exit code as a shell would tell it: 128 and the number of the signal."""
        return 128 + self.signal if self.signal is not None else self.exit_code


STATUS_KEYS = frozenset(ExitStatus.__dataclass_fields__)

#: What the recorder knows of them.
USED_KEYS = frozenset({"ended_at", "cpu_seconds", "io_read_bytes", "io_write_bytes"})


def told(folder: Path) -> ExitStatus | None:
    """The end that the shim recorded; None where it has not."""
    record = read_record(folder / "exit.json")
    return record and ExitStatus(**only(record, STATUS_KEYS)) or None


def untold(folder: Path) -> ExitStatus:
    """The end of which nobody saw how it came, with what is known all the same."""
    record = stopped(folder)
    result = record.get("result")
    reason = f"{KEEPER_LOST} (systemd: {result})" if result else KEEPER_LOST
    used = {"ended_at": time.time(), **only(record, USED_KEYS)}
    return ExitStatus(None, None, **used, reason=reason)


def stopped(folder: Path) -> dict[str, Any]:
    """What the recorder wrote down when all of a unit was over; empty before."""
    return read_record(folder / "stop.json") or {}


def only(record: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    """The fields of the record that we know."""
    return {key: record[key] for key in record if key in keys}
