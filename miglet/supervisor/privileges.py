"""Who a process is: its account, and how it gives up its privileges for good.

Started as root, every process that touches the network becomes an unprivileged user
first. Each worker has a user of its own, and so have the child tasks: the kernel then
keeps them from signalling, tracing and reading each other. (Landlock does not know
signals before Linux 6.12, and a seccomp filter cannot tell a worker's own process from
another one.) Where the package's users are missing, the user ``miglet`` serves for all
of them; where that one is missing too, they stay root, and MIGlet says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import grp
import os
import pwd
import signal
from typing import NamedTuple

from miglet.errors import MISCONFIGURED, MigletError

#: The user of processes that have none of their own on this machine.
SHARED_USER = "miglet"

#: The user of each worker, and of the child tasks: these read metadata, commands and
#: tokens. The package creates them (``etc/miglet.sysusers``).
HEARTBEAT_USER = "miglet-heartbeat"
COMMAND_USER = "miglet-commands"
METRICS_USER = "miglet-metrics"
NOTICE_USER = "miglet-notices"
TASK_USER = "miglet-tasks"
USERS = (
    HEARTBEAT_USER,
    COMMAND_USER,
    METRICS_USER,
    NOTICE_USER,
    TASK_USER,
)

#: The group of those that talk to the controller, and of nobody else: it may read the
#: credentials.
CREDENTIAL_GROUP = "miglet-net"

#: prctl(2) options, from linux/prctl.h.
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38

#: The C library, looked up before the fork and not by each worker again.
_LIBC = ctypes.CDLL(None, use_errno=True)


class UnknownAccount(MigletError):
    """The machine has no user of that name."""

    category = "misconfig"
    exit_status = MISCONFIGURED
    hint = "create the user, or name another one in the configuration"


class PrivilegesKept(MigletError):
    """Privileges could not be given up, or could be taken back."""

    category = "infrastructure"


class Account(NamedTuple):
    """A user of this machine, as passwd(5) has it."""

    name: str
    uid: int
    gid: int
    home: str


def group_id(name: str) -> int | None:
    """The number of the group called `name`; None when there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def account(name: str | None) -> Account:
    """The account called `name`; None means our own.

    Raises UnknownAccount.
    """
    try:
        entry = pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())
    except (KeyError, ValueError):
        if name:
            raise UnknownAccount(f"there is no user {name!r} on this machine") from None
        # A container may run under a number that nobody gave a name.
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), "/")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


@functools.cache
def unprivileged_account(user: str) -> Account | None:
    """The account for a process that should be `user`; None: it stays what it is.

    Looked up once, in the parent: a worker that asks the C library writes to 0.3 MB.
    """
    for name in (user, SHARED_USER):
        with contextlib.suppress(UnknownAccount):
            return account(name)
    return None


def unprivileged_uids() -> frozenset[int]:
    """The numbers of all users that processes of ours become."""
    found = map(unprivileged_account, USERS)
    return frozenset(each.uid for each in found if each)


def become(user: str) -> None:
    """Give up root's rights for good; raises what `drop_privileges` raises."""
    wanted = unprivileged_account(user)
    if os.geteuid() != 0 or wanted is None:
        return
    parent = os.getppid()
    drop_privileges(wanted)
    die_with_parent(parent)


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


def drop_privileges(account: Account) -> None:
    """Become `account` for good, without capabilities, and prove it.

    Import everything first: the new user may be unable to read our modules.
    PR_SET_PDEATHSIG is cleared by this (prctl(2)). Raises PrivilegesKept.
    """
    try:
        os.initgroups(account.name, account.gid)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise PrivilegesKept(f"cannot become {account.name}: {error}") from error
    set_no_new_privs()
    _verify_dropped(account)


def _verify_dropped(account: Account) -> None:
    """Raise PrivilegesKept unless we are `account` and nobody else can we be."""
    if {*os.getresuid(), account.uid} != {account.uid}:
        raise PrivilegesKept(f"the user ids are {os.getresuid()}, not {account.uid}")
    if {*os.getresgid(), account.gid} != {account.gid}:
        raise PrivilegesKept(f"the group ids are {os.getresgid()}, not {account.gid}")
    if account.uid == 0:
        return
    with contextlib.suppress(PermissionError):
        os.setuid(0)
        raise PrivilegesKept(f"{account.name} could become root again")


def set_no_new_privs() -> None:
    """From here on no program run by this process gains privileges (prctl(2))."""
    if _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
