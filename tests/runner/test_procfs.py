"""Processes as /proc shows them, where it shows less than usual, too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from miglet.runner import procfs
from miglet.runner.procfs import children, is_child, named_stat, oldest_child, snapshot
from tests.launching import as_root
from tests.paths import ROOT
from tests.support import eventually

#: As another user with this /proc: launch, sample and kill a run.
AS_NOBODY = """
import os, pathlib, sys, tempfile
sys.path.append(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
from miglet.runner.launcher import Launcher, LaunchSpec
from miglet.runner.procfs import snapshot, stat_of
folder = pathlib.Path(tempfile.mkdtemp())
spec = LaunchSpec("1", "a", folder, ("/bin/sleep", "60"), {})
run = Launcher(folder / "runtime").start(spec)
assert run.usage().max_memory_bytes > 0
assert [who.pid for who in run.tree()] == [run.listener.pid]
assert stat_of(1) is None and 1 not in snapshot()
assert run.kill() and run.ended().signal == 9
"""


@contextmanager
def child(name: str) -> Iterator[int]:
    """A child of ours that has this name."""
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
        signal.pause()
        os._exit(0)
    try:
        eventually(lambda: named_stat(pid)[0] == name.encode(), what="its name")
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture(params=["listed", "looked for"])
def either_way(request, monkeypatch) -> None:
    """With and without CONFIG_PROC_CHILDREN."""
    if request.param == "looked for":
        monkeypatch.setattr(procfs, "CHILDREN_OF_THREAD", "/no/such/file")


def test_children_are_found_and_those_of_others_are_not(either_way):
    with child("one") as pid:
        assert pid in children(os.getpid())
        assert pid not in children(1) and children(pid) == []
    assert pid not in children(os.getpid())


def test_a_zombie_is_a_child_and_keeps_its_name(either_way):
    with child("zombie") as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert named_stat(pid)[0] == b"zombie"
        assert pid in children(os.getpid()) and pid not in snapshot()


def test_the_oldest_of_a_name_is_found(either_way):
    me = os.getpid()
    with child("a (b) c") as first, child("a (b) c"), child("other"):
        pid, start = oldest_child(me, b"a (b) c")
        assert pid == first and is_child(pid, start, me)
        assert not is_child(pid, start + 1, me) and not is_child(pid, start, 1)
    assert oldest_child(me, b"a (b) c") is None
    assert not is_child(pid, start, me)


@as_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare(1)")
@pytest.mark.parametrize("option", ["hidepid=1", "hidepid=2"])
def test_processes_that_are_hidden_from_us_are_none(option):
    mounted = f"mount -t proc -o {option} proc /proc && exec /usr/bin/python3 -IB"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    command += [f'{mounted} -c "$0" "$1"', AS_NOBODY, str(ROOT)]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
