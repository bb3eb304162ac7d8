"""The end of the machine after the end of MIGlet: `shutdown.action: poweroff`.

The order is given when the journal is closed and nothing is left to be told. It is not
given to a machine that ends already, nor because an administrator stops the service.
"""

from __future__ import annotations

import logging

from miglet.errors import DONE
from miglet.lifecycle.vm import End
from miglet.supervisor import systemd
from miglet.supervisor.systemd import systemd_usable

#: How long the order may take to be taken; it takes about 10 ms.
ORDER_SECONDS = 10.0

#: What `systemctl poweroff` asks of the service manager, without asking logind first,
#: which wants capabilities that the unit has not (systemctl(1), systemd.special(7)).
UNDER_SYSTEMD = (
    *("systemctl", "--no-block", "--job-mode=replace-irreversibly"),
    *("start", "poweroff.target"),
)
ELSEWHERE = ("poweroff",)

log = logging.getLogger(__name__)


def due(action: str, end: End | None, exit_status: int) -> bool:
    """Whether the machine goes, too: its work is done, and nobody else ended it.

    After any other exit status MIGlet is started again, or somebody has to look.
    """
    ours = end is not None and end.requested_by != "signal"
    return action == "poweroff" and ours and exit_status == DONE


def power_off() -> None:
    """Have the machine switched off, in order; only a log line tells of a failure."""
    ordered(UNDER_SYSTEMD if systemd_usable() else ELSEWHERE)


def ordered(command: tuple[str, ...]) -> bool:
    """Whether the order was taken."""
    log.info("the machine is switched off: %s", " ".join(command))
    try:
        systemd.order(command, ORDER_SECONDS)
    except systemd.Unheeded as error:
        log.error("the machine cannot be switched off: %s", error)
        return False
    return True
