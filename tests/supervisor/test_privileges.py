"""Accounts, and privileges that do not come back once they are dropped."""

from __future__ import annotations

import os
import pwd

import pytest

from miglet import redaction
from miglet.supervisor import privileges
from tests.supervisor.forked import exit_status_of


@pytest.fixture(autouse=True)
def _nothing_known():
    redaction.forget_secrets()
    yield
    redaction.forget_secrets()


def test_our_own_account_needs_no_name():
    own = privileges.account(None)
    assert own.uid == os.geteuid()
    assert own.home.startswith("/")


@pytest.mark.parametrize("name", ["no-such-user-here", "nul\0l"])
def test_an_unknown_account_is_named(name):
    with pytest.raises(privileges.UnknownAccount, match="there is no user"):
        privileges.account(name)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges")


def status_field(name: str) -> str:
    """A field of /proc/self/status (proc(5))."""
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return fields[name].strip()


@needs_root
def test_dropped_privileges_do_not_come_back():
    nobody = privileges.account("nobody")

    def work():
        os.setgroups([0, 4242])
        privileges.drop_privileges(nobody)
        gids = {nobody.gid, *os.getgrouplist("nobody", nobody.gid)}
        return (
            os.getresuid() == (nobody.uid,) * 3
            and set(os.getgroups()) <= gids
            and int(status_field("CapEff"), 16) == 0
            and int(status_field("CapPrm"), 16) == 0
            and status_field("NoNewPrivs") == "1"
        )

    assert exit_status_of(work) == 0


@needs_root
def test_a_privilege_that_could_come_back_is_reported():
    nobody = privileges.account("nobody")

    def work():
        os.setresuid(nobody.uid, nobody.uid, 0)
        try:
            privileges._verify_dropped(nobody)
        except privileges.PrivilegesKept:
            return True
        return False

    assert exit_status_of(work) == 0


@needs_root
def test_who_may_not_become_another_is_reported():
    nobody, root = privileges.account("nobody"), privileges.account("root")

    def work():
        privileges.drop_privileges(nobody)
        try:
            privileges.drop_privileges(root)
        except privileges.PrivilegesKept as error:
            return "cannot become root" in str(error)
        return False

    assert exit_status_of(work) == 0


def test_accounts_come_from_the_machine():
    entry = pwd.getpwuid(os.geteuid())
    account = privileges.account(entry.pw_name)
    assert account == (entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
