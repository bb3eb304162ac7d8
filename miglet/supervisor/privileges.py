"""Accounts of the machine, and how a process gives up its privileges for good."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
from typing import NamedTuple

from miglet.errors import MISCONFIGURED, MigletError

#: prctl(2) options, from linux/prctl.h.
PR_SET_NO_NEW_PRIVS = 38


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
    _insist_on(account)


def _insist_on(account: Account) -> None:
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
    _prctl(PR_SET_NO_NEW_PRIVS)


def _prctl(option: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def close_descriptors(keep: set[int]) -> None:
    """Close every descriptor from 3 on that is not in `keep`."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            # listdir's own descriptor is in its list, and closed by now.
            with contextlib.suppress(OSError):
                os.close(int(name))
