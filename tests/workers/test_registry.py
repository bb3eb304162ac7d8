"""The workers: each has a name, a user and facts of its own."""

from __future__ import annotations

from miglet.supervisor import privileges
from miglet.workers.registry import ALWAYS, LATE, NAMES, facts_of, worker_class
from tests.paths import ROOT

WORKERS = [worker_class(name) for name in NAMES]


def test_names_are_unique_and_those_of_the_classes():
    assert [each.name for each in WORKERS] == list(NAMES)
    assert len(set(NAMES)) == len(NAMES)


def test_only_the_worker_that_touches_the_runner_stays_root():
    assert [each.name for each in WORKERS if not each.user] == ["runner-watcher"]


def test_each_unprivileged_process_has_a_user_of_its_own():
    users = [each.user for each in WORKERS if each.user]
    assert sorted([*users, privileges.TASK_USER]) == sorted(privileges.USERS)
    assert len(set(privileges.USERS)) == len(privileges.USERS)


def test_the_package_creates_these_users():
    lines = (ROOT / "etc/miglet.sysusers").read_text().splitlines()
    created = {line.split()[1] for line in lines if line.startswith("u ")}
    assert set(privileges.USERS) <= created


def test_a_worker_that_is_imported_late_may_send_what_its_class_declares():
    for name in LATE:
        assert facts_of(name) == worker_class(name).facts
    for name in ALWAYS:
        assert facts_of(name) == ALWAYS[name].facts
