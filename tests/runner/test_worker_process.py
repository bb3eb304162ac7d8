"""The Worker of a run, as the kernel tells of it: found, watched, its exit status."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from miglet.runner import worker_process
from miglet.runner.identity import ProcessIdentity
from miglet.runner.records import ExitStatus
from miglet.runner.run import Run, RunnerPresent
from miglet.runner.worker_process import WorkerProcess, find_worker, reaped_status
from tests.launching import Place, gone, launching
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.units]

#: A program whose name for the kernel is its file's.
WORKER = "Runner.Worker"

#: Another ioctl of pidfds, which an older kernel does not know either.
NO_IOCTL = 0xC040FF7F


@pytest.fixture
def place() -> Iterator[Place]:
    with launching() as made:
        yield made


@pytest.fixture
def no_exit_info(monkeypatch) -> None:
    """A kernel that knows no PIDFD_GET_INFO."""
    monkeypatch.setattr(worker_process, "PIDFD_GET_INFO", NO_IOCTL)


def program(place: Place, name: str, script: str) -> None:
    """An executable of this name beside the Listener."""
    path = place.path(name)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def started(place: Place, worker: str, listener: str = "./Runner.Worker") -> Run:
    """A run whose Listener has a Worker that waits for the file `go`."""
    program(place, WORKER, worker)
    return place.start(f"{listener}\nwait\nexit 0")


#: A Worker's script: it says that it is up, and ends on request.
WAIT = "touch up; while ! [ -e go ]; do sleep 0.01; done; "


def worker_of(run: Run) -> WorkerProcess:
    return eventually(run.worker, what="the Worker")


def status_of(worker: WorkerProcess) -> ExitStatus:
    return eventually(worker.exit_status, what="the Worker's exit status")


def forked_parent(folder: Path, code: int) -> tuple[ProcessIdentity, Callable[[], int]]:
    """A process of ours with a Worker that lives until it is asked to end."""
    waiting, go = os.pipe()
    parent = os.fork()
    if parent == 0:
        worker = os.fork()
        if worker == 0:
            os.close(go)  # it ends with us, whatever becomes of the test
            Path("/proc/self/comm").write_text(WORKER)
            os.read(waiting, 1)
            os._exit(code)
        os.close(go)
        os.waitpid(worker, 0)
        signal.pause()
        os._exit(0)
    os.close(waiting)
    return ProcessIdentity.of(parent), lambda: os.write(go, b"g")


@pytest.fixture
def ended_parent(tmp_path) -> Iterator[tuple[WorkerProcess, Callable[[], int]]]:
    """A Worker below a parent that no shim keeps, and what makes it end."""
    parent, go = forked_parent(tmp_path, code=102)
    worker = eventually(lambda: find_worker(tmp_path, parent, parent), what="a Worker")
    yield worker, go
    worker.close()
    parent.signal(signal.SIGKILL)
    os.waitpid(parent.pid, 0)


def test_a_pidfd_tells_the_status_once_the_parent_has_collected_the_worker(
    ended_parent,
):
    worker, go = ended_parent
    assert not worker.ended() and worker.exit_status() is None
    go()
    assert select.select([worker.fileno()], [], [], 10)[0]
    assert worker.ended()
    eventually(lambda: not os.path.exists(f"/proc/{worker.identity.pid}"))
    if reaped_status(worker.fileno()) is None:
        pytest.skip("this kernel has no PIDFD_GET_INFO with exit status")
    status = worker.exit_status()
    assert status and (status.exit_code, status.signal) == (102, None)


def test_without_any_word_of_the_kernel_the_status_stays_unknown(
    ended_parent, no_exit_info
):
    worker, go = ended_parent
    go()
    eventually(worker.ended, what="the end of the Worker")
    eventually(lambda: not os.path.exists(f"/proc/{worker.identity.pid}"))
    assert worker.exit_status() is None


def test_the_shim_records_what_the_kernel_announces_of_the_end(place, no_exit_info):
    run = started(place, f"{WAIT} exit 102")
    eventually(place.path("up").exists, what="the Worker")
    worker = worker_of(run)
    place.path("go").touch()
    eventually(worker.ended, what="the end of the Worker")
    eventually(run.ended, what="the end of the Listener")
    status = worker.exit_status()
    worker.close()
    if status is None:
        pytest.skip("the process connector announces nothing here")
    assert status.exit_code == 102


#: A Listener that does not collect its Worker before it is asked to.
LATE = """
import os, pathlib
worker = os.posix_spawn("./Runner.Worker", ["./Runner.Worker"], os.environ)
os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
open("up", "w")
while not os.path.exists("go"): os.sched_yield()
os.waitpid(worker, 0)
"""


def test_a_worker_that_nobody_watched_is_known_by_its_announced_end(place):
    program(place, WORKER, "exit 103")
    place.path("late.py").write_text(LATE)
    run = place.start("exec $PYTHON -IS late.py")
    eventually(place.path("up").exists, what="the end of the Worker")
    recorded = run.folder / "worker-exit.json"
    try:
        eventually(recorded.exists, seconds=2)
    except AssertionError:
        pytest.skip("the process connector announces nothing here")
    place.path("go").touch()
    eventually(run.ended, what="the end of the Listener")
    worker = run.worker()
    assert worker.ended() and worker.exit_status().exit_code == 103


@pytest.mark.parametrize(
    ("end", "code", "number"),
    [("exit 102", 102, None), ("kill -SEGV $$", None, signal.SIGSEGV)],
)
def test_a_worker_outlives_its_listener_and_the_shim_tells_how_it_ended(
    place, no_exit_info, end, code, number
):
    run = started(place, WAIT + end)
    eventually(place.path("up").exists, what="the Worker")
    worker = worker_of(run)
    run.listener.signal(signal.SIGKILL)
    assert eventually(run.ended, what="the Listener's end").signal == signal.SIGKILL
    assert run.orphaned() and not worker.ended()
    with pytest.raises(RunnerPresent):
        run.forget()
    assert place.launcher.find().worker().identity == worker.identity
    place.path("go").touch()
    status = status_of(worker)
    assert (status.exit_code, status.signal) == (code, number)
    assert status.cpu_seconds is not None
    eventually(lambda: gone(run), what="the end of the shim")
    assert not run.orphaned() and run.worker().exit_status() == status
    worker.close()
    run.forget()


def test_the_shim_knows_a_worker_that_miglet_has_never_seen(place, no_exit_info):
    run = started(place, f"{WAIT} exit 100")
    eventually(place.path("up").exists, what="the Worker")
    run.listener.signal(signal.SIGKILL)
    eventually(run.ended, what="the Listener's end")
    assert run.orphaned()
    place.path("go").touch()
    assert status_of(worker_of(run)).exit_code == 100


def test_listener_and_worker_may_die_at_once(place, no_exit_info):
    run = started(place, f"{WAIT} exit 100")
    eventually(place.path("up").exists, what="the Worker")
    worker = worker_of(run)
    run.listener.signal(signal.SIGSTOP)
    # Until then it may still reap the Worker, and take its status along.
    listener = psutil.Process(run.listener.pid)
    eventually(lambda: listener.status() == psutil.STATUS_STOPPED, what="the stop")
    worker.signal(signal.SIGKILL)
    run.listener.signal(signal.SIGKILL)
    assert status_of(worker).signal == signal.SIGKILL
    assert eventually(run.ended, what="the Listener's end").signal == signal.SIGKILL
    worker.close()


def test_the_name_alone_makes_no_worker(place):
    program(place, WORKER, "exec sleep 60")
    run = place.start(
        "sh -c './Runner.Worker & touch below; wait' &\n"
        "sh -c '(setsid ./Runner.Worker &); touch adopted' &\n"
        "wait"
    )
    eventually(lambda: place.path("below").exists() and place.path("adopted").exists())
    eventually(lambda: len(run.tree()) >= 4, what="both of that name")
    assert run.worker() is None and not run.orphaned()


def test_an_orphan_that_takes_the_name_is_not_taken_for_the_worker(place, no_exit_info):
    program(place, "Runner.Worker", f"(setsid ./fake/Runner.Worker &); {WAIT} exit 102")
    place.path("fake").mkdir()
    program(place, "fake/Runner.Worker", "touch fake/up; exec sleep 60")
    run = place.start("./Runner.Worker & touch down; wait")
    eventually(place.path("fake/up").exists, what="the orphan")
    eventually(place.path("up").exists, what="the Worker")
    run.listener.signal(signal.SIGKILL)
    eventually(run.ended, what="the Listener's end")
    worker = worker_of(run)
    assert worker.identity.start_time == min(
        who.start_time for who in run.tree() if who != run.listener
    )
    place.path("go").touch()
    assert status_of(worker).exit_code == 102
    assert not run.orphaned()
    worker.close()


def test_a_worker_is_known_again_after_a_restart(place):
    run = started(place, f"{WAIT} exit 102")
    eventually(place.path("up").exists, what="the Worker")
    first = worker_of(run)
    first.close()
    again = place.launcher.find().worker()
    assert again.identity == first.identity and not again.ended()
    again.close()


def test_a_process_with_the_pid_of_a_recorded_worker_is_not_the_worker(tmp_path):
    me = ProcessIdentity.of(os.getpid())
    record = {**me.as_json(), "start_time": me.start_time - 1}
    (tmp_path / "worker.json").write_text(json.dumps(record))
    worker = find_worker(tmp_path, me, me)
    assert worker.ended() and worker.fileno() is None
    assert not worker.signal(signal.SIGTERM)
    assert worker.exit_status() is None


@pytest.mark.parametrize("text", ["", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "worker.json").write_text(text)
    me = ProcessIdentity.of(os.getpid())
    assert find_worker(tmp_path, me, me) is None


def test_a_worker_that_cannot_be_recorded_is_watched_all_the_same(tmp_path, caplog):
    parent, go = forked_parent(tmp_path, code=100)
    folder = tmp_path / "gone"
    worker = eventually(lambda: find_worker(folder, parent, parent), what="a Worker")
    assert not worker.ended() and "cannot record" in caplog.text
    go()
    eventually(worker.ended, what="the end of the Worker")
    worker.close()
    parent.signal(signal.SIGKILL)
    os.waitpid(parent.pid, 0)
