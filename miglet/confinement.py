"""What a forked worker does to itself first: its name, its fate, its rights.

Started as root, a worker that does not touch the runner becomes ``miglet`` before it
touches the network; where there is no such user it stays what it is.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal

from miglet.security import account, drop_privileges

#: The user that the workers become; the package creates it.
MIGLET_USER = "miglet"

#: See prctl(2).
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15


def name_process(name: str) -> None:
    """Show `name` (its first 15 bytes) where process names are shown."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Be killed as soon as `parent` is dead, or now if it already is.

    The kernel forgets this when the user changes (prctl(2)): call it again then.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def miglet_user_exists() -> bool:
    """Whether workers can be separated from root."""
    try:
        pwd.getpwnam(MIGLET_USER)
    except KeyError:
        return False
    return True


def become_miglet() -> None:
    """Give up root's rights for good; raises what `drop_privileges` raises."""
    if os.geteuid() != 0 or not miglet_user_exists():
        return
    parent = os.getppid()
    drop_privileges(account(MIGLET_USER))
    die_with_parent(parent)
