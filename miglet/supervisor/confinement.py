"""What a forked worker does to itself first: its name, its fate, its rights.

Started as root, a worker that does not touch the runner becomes ``miglet`` before it
touches the network; where there is no such user it stays what it is.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal

from miglet.supervisor.privileges import (
    Account,
    UnknownAccount,
    account,
    drop_privileges,
)

#: The user that the workers become; the package creates it.
MIGLET_USER = "miglet"

#: See prctl(2).
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15

#: The C library, looked up before the fork and not by each worker again.
_LIBC = ctypes.CDLL(None)


def name_process(name: str) -> None:
    """Show `name` (its first 15 bytes) where process names are shown."""
    _LIBC.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Be killed as soon as `parent` is dead, or now if it already is.

    The kernel forgets this when the user changes (prctl(2)): call it again then.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@functools.cache
def miglet_account() -> Account | None:
    """The workers' account; None where workers cannot be separated from root.

    Looked up once, in the parent: a worker that asks the C library writes to 0.3 MB.
    """
    try:
        return account(MIGLET_USER)
    except UnknownAccount:
        return None


def miglet_user_exists() -> bool:
    """Whether workers can be separated from root."""
    return miglet_account() is not None


def become_miglet() -> None:
    """Give up root's rights for good; raises what `drop_privileges` raises."""
    wanted = miglet_account()
    if os.geteuid() != 0 or wanted is None:
        return
    parent = os.getppid()
    drop_privileges(wanted)
    die_with_parent(parent)
