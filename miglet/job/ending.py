"""How a run ended, seen from outside: exit statuses, who stopped it, what was short.

This is all that the verdict knows besides the signs; it carries no opinion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from miglet.errors import BadMessage

#: Why we stop a job; each is the cause of a job's end by that name too.
STOPS = ("shutdown", "timeout", "termination_notice")


@dataclass(frozen=True)
class Ending:
    """The end of a Listener and of its Worker, as far as the kernel reported it."""

    #: The Listener's exit status; None if a signal ended it, or it is not known.
    exit_code: int | None = None
    signal: int | None = None
    #: Whether the Listener has ended and it is known how.
    known: bool = False
    #: The same of the Worker: not what a log says of it.
    worker_exit_code: int | None = None
    worker_signal: int | None = None
    #: Whether the Listener ended before its Worker.
    orphaned: bool = False
    #: Whether we killed the Worker because it did not begin, or not end.
    worker_stuck: bool = False
    #: Why we stopped the runner while its job ran (one of STOPS); None: we did not.
    stopped_by: str | None = None
    #: How many processes the kernel killed for want of memory during the job.
    oom_kill_delta: int = 0
    #: Room left where the job works; None: not measured.
    disk_free_bytes: int | None = None
    #: Whether the machine was started again meanwhile.
    boot_changed: bool = False
    #: Whether a job was announced and none came within the limit.
    ghost: bool = False

    @property
    def status(self) -> int | None:
        """The Listener's exit status as a shell gives it: 128 + signal."""
        return shell_status(self.exit_code, self.signal)

    @property
    def worker_status(self) -> int | None:
        """The Worker's exit status as a shell gives it; None: not known."""
        return shell_status(self.worker_exit_code, self.worker_signal)

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended the Listener, as the kernel's OOM killer does."""
        return self.status == 137

    def as_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    @staticmethod
    def of_json(document: Mapping[str, Any]) -> Ending:
        """The ending that `as_json` gave; raises BadMessage for anything else."""
        names = {field.name for field in fields(Ending)}
        try:
            return Ending(**{k: v for k, v in document.items() if k in names})
        except (AttributeError, TypeError) as error:
            raise BadMessage(f"not the ending of a run: {error!r}") from error


def shell_status(exit_code: int | None, signal: int | None) -> int | None:
    """An exit status as a shell gives it: 128 and the number of the signal."""
    return 128 + signal if signal is not None else exit_code
