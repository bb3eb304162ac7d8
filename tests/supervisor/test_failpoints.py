"""The points at which a test has MIGlet die, and that nobody else can use them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from miglet.supervisor import failpoints
from miglet.supervisor.failpoints import VARIABLE, planned

pytestmark = pytest.mark.integration

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")


@pytest.fixture
def plan(tmp_path) -> Path:
    """A file of which MIGlet may take orders."""
    path = tmp_path / "plan"
    path.write_text("a.point 2 exit\nanother 1+ kill\n")
    path.chmod(0o600)
    return path


def points(path: Path) -> dict[str, failpoints.Point]:
    return planned({VARIABLE: str(path)})


def fate(path: Path, name: str, times: int) -> int:
    """How a process ends that comes by the point so often; 0: as if nothing were."""
    pid = os.fork()
    if pid == 0:
        point = points(path)[name]
        for _ in range(times):
            point.reach()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_without_the_variable_there_are_no_points():
    assert planned({}) == {}
    assert planned({VARIABLE: ""}) == {}
    assert failpoints.PLAN == {}
    failpoints.reach("journal.recorded")


def test_a_line_is_a_name_a_number_and_an_action(plan):
    read = points(plan)
    assert read.keys() == {"a.point", "another"}
    assert (read["a.point"].number, read["a.point"].always) == (2, False)
    assert (read["another"].number, read["another"].always) == (1, True)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_ignored(plan, mode):
    plan.chmod(mode)
    assert points(plan) == {}


@as_root
def test_somebody_elses_file_is_ignored(plan):
    os.chown(plan, 12345, 12345)
    assert points(plan) == {}


def test_a_link_to_a_file_is_ignored(plan, tmp_path):
    (tmp_path / "link").symlink_to(plan)
    assert points(tmp_path / "link") == {}


@pytest.mark.parametrize("line", ["a.point 1 explode", "a.point", "a.point x kill"])
def test_a_line_that_is_none_is_a_mistake_of_the_test(plan, line):
    plan.write_text(line)
    with pytest.raises((KeyError, ValueError)):
        points(plan)


def test_a_file_that_is_missing_is_a_mistake_of_the_test(tmp_path):
    with pytest.raises(OSError):
        points(tmp_path / "nowhere")


def test_a_point_acts_when_it_is_reached_for_the_given_time(plan):
    assert fate(plan, "a.point", 1) == 0
    assert fate(plan, "a.point", 2) == 1


def test_it_acts_once_however_many_processes_come_by(plan):
    assert fate(plan, "a.point", 2) == 1
    assert plan.with_name("plan.a.point").exists()
    assert fate(plan, "a.point", 5) == 0


def test_one_with_a_plus_acts_every_time(plan):
    for _ in range(2):
        assert fate(plan, "another", 1) == -signal.SIGKILL


def test_a_worker_can_take_its_parent_along(plan):
    plan.write_text("a.point 1 kill-with-parent\n")
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            points(plan)["a.point"].reach()
        os.waitpid(child, 0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL


def test_a_process_that_is_stopped_goes_on_when_it_is_asked_to(plan):
    plan.write_text("a.point 1 stop\n")
    pid = os.fork()
    if pid == 0:
        points(plan)["a.point"].reach()
        os._exit(5)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
