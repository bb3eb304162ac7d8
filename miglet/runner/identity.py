"""The identity of a process: its pid, when it started, and in which boot.

Pids are reused and records outlive a boot, so nothing is ever signalled or believed
to be alive on a pid alone. Not a part of `procfs`: the shim does without dataclasses.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from miglet.errors import MISCONFIGURED, MigletError
from miglet.messages.codec import Value, frozen_value
from miglet.runner import procfs
from miglet.runner.procfs import BOOT_ID, START, is_running, send_signal, stat_of


class ProcIncomplete(MigletError):
    """/proc does not have what MIGlet cannot do without."""

    category = "misconfig"
    exit_status = MISCONFIGURED
    hint = "mount /proc without subset=pid: see proc(5)"


@functools.cache
def boot_id(path: str = BOOT_ID) -> str:
    """The kernel's name for this boot of the machine; raises ProcIncomplete.

    Read once: a process lives in one boot, and the watcher asks every second.
    """
    try:
        return procfs.boot_id(path)
    except OSError as error:
        text = f"cannot tell this boot from others: {path}: {error.strerror}"
        raise ProcIncomplete(text) from error


@frozen_value
class ProcessIdentity(Value):
    """One process, distinct from every other that had or will have its pid."""

    pid: int
    #: Clock ticks after boot, field 22 of /proc/PID/stat (proc(5)).
    start_time: int
    #: /proc/sys/kernel/random/boot_id at that time.
    boot_id: str

    @classmethod
    def of(cls, pid: int, boot_id_path: str = BOOT_ID) -> ProcessIdentity | None:
        """The process that has `pid` now, a zombie included; None: there is none."""
        stat = stat_of(pid)
        return stat and cls(pid, int(stat[START]), boot_id(boot_id_path)) or None

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> ProcessIdentity:
        """Read `as_json`'s form; raises KeyError, TypeError or ValueError."""
        return cls(
            int(document["pid"]),
            int(document["start_time"]),
            str(document["boot_id"]),
        )

    def as_json(self) -> dict[str, Any]:
        """The form in which records keep it."""
        return asdict(self)

    def alive(self, boot_id_path: str = BOOT_ID) -> bool:
        """Whether it still runs: not a zombie, not its successor, not another boot."""
        stat = stat_of(self.pid)
        return (
            stat is not None
            and is_running(stat)
            and int(stat[START]) == self.start_time
            and boot_id(boot_id_path) == self.boot_id
        )

    def signal(self, number: int, boot_id_path: str = BOOT_ID) -> bool:
        """Signal this very process; false if it has ended or we may not signal it."""
        this_boot = boot_id(boot_id_path) == self.boot_id
        return this_boot and send_signal(self.pid, self.start_time, number)
