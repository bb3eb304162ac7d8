"""Starts that fail: which of them are alike, and how long the next one waits."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from miglet.agent.failed_starts import (
    RECORD,
    RECORD_BYTES,
    EarlyFailures,
    folders,
    start_delay,
    wait_before_start,
)
from miglet.config.schema import KEYS
from miglet.errors import (
    MISCONFIGURED,
    REFUSED,
    UNAVAILABLE,
    BadMessage,
    Fault,
    JournalUnusable,
    MigletError,
    Misconfigured,
)

BOOT = "8a6ba3f6-0000-4000-8000-000000000000"


class Unavailable(MigletError):
    """Something that the next start may find."""

    exit_status = UNAVAILABLE


def lacking(key: str, reason: str, status: int = UNAVAILABLE) -> Misconfigured:
    """A configuration without this key."""
    return Misconfigured([Fault(key, "not set", reason)], status)


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    """The folders that the service manager provides."""
    for name in ("state", "run"):
        (tmp_path / name).mkdir()
    return {
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "RUNTIME_DIRECTORY": str(tmp_path / "run"),
    }


@pytest.fixture
def fail(environ):
    """One start that fails with this error; how the one after it sees that."""

    def start(error: BaseException, boot: str = BOOT, passed: bool = False):
        with pytest.raises(type(error)), EarlyFailures(environ, boot) as failures:
            if passed:
                failures.passed()
            raise error
        return EarlyFailures(environ, boot).last

    return start


@pytest.mark.parametrize(
    ("repeats", "seconds"), [(0, 0), (1, 1), (2, 2), (4, 8), (7, 60), (500, 60)]
)
def test_the_more_starts_fail_alike_the_longer_the_next_one_waits(repeats, seconds):
    assert start_delay(repeats) == seconds


class FakeNotifier:
    """Records what was sent to the service manager."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def ready(self, status: str) -> None:
        self.said.append(status)

    def alive(self) -> None:
        self.said.append("alive")


def test_the_service_manager_learns_why_a_start_waits_and_that_it_lives(monkeypatch):
    monkeypatch.setattr("miglet.agent.failed_starts.LONGEST_DELAY", 0.01)
    notifier = FakeNotifier()
    wait_before_start(notifier, "disk", 2)
    assert notifier.said[0].startswith("waiting until 20")
    assert notifier.said[0].endswith("3 starts failed: disk")
    assert notifier.said[1] == "alive"


def test_nobody_waits_after_the_first_failure():
    notifier = FakeNotifier()
    wait_before_start(notifier, "disk", 0)
    assert notifier.said == []


def test_starts_that_fail_alike_are_counted(fail):
    counted = [
        fail(lacking("pool_id", f"in {number} s")).repeats for number in range(4)
    ]
    assert counted == [0, 1, 2, 3]


def test_the_next_start_knows_what_the_last_one_failed_of(fail):
    fail(lacking("pool_id", "503"))
    last = fail(lacking("pool_id", "no\x1b[31m answer"))
    assert last.reason == r"pool_id (not set): no\x1b[31m answer"
    assert last.exit_status == UNAVAILABLE


@pytest.mark.parametrize(
    "other",
    [
        lacking("org_id", "503"),
        lacking("pool_id", "503", 1),
        Unavailable("full"),
        JournalUnusable("gone"),
        RuntimeError("a defect"),
    ],
    ids=repr,
)
def test_another_failure_is_counted_anew(fail, other):
    fail(lacking("pool_id", "503"))
    fail(lacking("pool_id", "503"))
    assert fail(other).repeats == 0


@pytest.mark.parametrize(
    "error",
    [lacking("pool_id", "is empty", MISCONFIGURED), KeyboardInterrupt(), SystemExit(1)],
    ids=repr,
)
def test_a_start_that_is_not_tried_again_is_not_recorded(fail, error):
    assert fail(error) is None


def test_a_start_that_is_refused_is_not_recorded(fail):
    error = Unavailable("no")
    error.exit_status = REFUSED
    assert fail(error) is None


def test_a_failure_that_says_nothing_about_the_next_start_is_not_recorded(environ):
    with (
        pytest.raises(Unavailable),
        EarlyFailures(environ, BOOT, (Unavailable,)) as failures,
    ):
        raise Unavailable("another MIGlet runs")
    assert failures.last is EarlyFailures(environ, BOOT).last is None


def test_a_start_that_came_as_far_as_the_journal_leaves_no_record(fail):
    fail(Unavailable("full"))
    fail(Unavailable("full"))
    assert fail(Unavailable("full"), passed=True) is None


def test_failures_of_another_boot_do_not_count(fail):
    fail(Unavailable("full"))
    assert fail(Unavailable("full"), boot="another").repeats == 0


def test_a_record_that_is_none_does_not_count(environ, fail):
    for content in (b"", b"{", b"[]", b"{}", b"x" * (RECORD_BYTES + 1)):
        (Path(environ["STATE_DIRECTORY"]) / RECORD).write_bytes(content)
        assert EarlyFailures(environ, BOOT).last is None
    assert fail(Unavailable("full")).repeats == 0


def test_where_the_state_has_no_room_the_runtime_folder_serves(
    environ, fail, monkeypatch
):
    write = Path.write_text

    def full(path: Path, text: str) -> int:
        if str(path).startswith(environ["STATE_DIRECTORY"]):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", full)
    assert [fail(Unavailable("full")).repeats for _ in range(3)] == [0, 1, 2]


def test_where_there_is_no_folder_nothing_is_recorded_and_the_error_is_the_same():
    nowhere = dict.fromkeys(("STATE_DIRECTORY", "RUNTIME_DIRECTORY"), "/nonexistent")
    with pytest.raises(BadMessage, match="as it was"), EarlyFailures(nowhere, BOOT):
        raise BadMessage("as it was")


def test_without_a_service_manager_the_default_folders_are_meant():
    defaults = [
        KEYS[name].rules["default"] for name in ("paths.state", "paths.runtime")
    ]
    assert folders({}) == [Path(default) for default in defaults]
    several = {"STATE_DIRECTORY": "/a:/b", "RUNTIME_DIRECTORY": "/c"}
    assert folders(several) == [Path("/a"), Path("/c")]
