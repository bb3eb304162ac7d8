"""A launched run: its end, its signals, its family and what that uses."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator

import pytest

from miglet.runner.identity import ProcessIdentity
from miglet.runner.procfs import SESSION, stat_of
from miglet.runner.records import SHIM_LOST, ExitStatus
from miglet.runner.run import RunnerPresent
from tests.agent_process import IN_UNITS
from tests.launching import (
    Place,
    end_of,
    forked,
    gone,
    killed,
    launching,
    orphans_of,
)
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.units]


@pytest.fixture
def place() -> Iterator[Place]:
    with launching() as made:
        yield made


def test_a_living_run_is_not_forgotten(place):
    run = place.start("exec sleep 60")
    with pytest.raises(RunnerPresent):
        run.forget()
    assert place.launcher.find() == run


def test_a_foreign_process_with_a_recorded_pid_is_left_alone(place):
    run = place.start("exit 0")
    end_of(run)
    eventually(lambda: gone(run), what="the end of the shim")
    stranger = forked(os.setsid)
    eventually(lambda: os.getsid(stranger) == stranger, what="a session of its own")
    path = run.folder / "run.json"
    recorded = json.loads(path.read_text())
    for role in ("shim", "listener"):
        start = ProcessIdentity.of(stranger).start_time
        recorded[role] |= {"pid": stranger, "start_time": start - 1}
    path.write_text(json.dumps(recorded))
    (run.folder / "exit.json").unlink()
    fake = place.launcher.find()
    assert not fake.alive() and not fake.interrupt() and fake.tree() == []
    assert fake.kill()
    assert fake.wait_descriptor() is None
    assert (
        end_of(fake) == ExitStatus(None, None, fake.ended().ended_at, reason=SHIM_LOST)
        or not end_of(fake).known
    )
    assert ProcessIdentity.of(stranger).alive()
    killed(stranger)


def test_an_end_without_a_shim_is_unknown_and_says_why(place):
    run = place.start("exec sleep 60")
    run.shim.signal(signal.SIGKILL)
    eventually(lambda: not run.shim.alive(), what="the shim's death")
    # In a unit the others follow at once; else nothing happens to them.
    assert IN_UNITS or (run.alive() and run.ended() is None)
    assert run.kill()
    status = run.ended()
    assert not status.known and status.reason.startswith(SHIM_LOST)


def test_a_shim_that_does_not_end_is_killed_too(place):
    run = place.start("exec sleep 60")
    run.shim.signal(signal.SIGSTOP)
    assert run.kill(seconds=4.0)
    eventually(lambda: not run.shim.alive(), what="the end of the shim")
    assert run.ended().reason.startswith(SHIM_LOST)


@pytest.mark.skipif(IN_UNITS, reason="systemd kills what we cannot")
def test_a_process_that_does_not_die_is_waited_for_no_longer_than_allowed(
    place, monkeypatch
):
    run = place.start("exec sleep 60")
    run.shim.signal(signal.SIGSTOP)
    with monkeypatch.context() as powerless:
        powerless.setattr(ProcessIdentity, "signal", lambda who, number: False)
        began = time.monotonic()
        assert not run.kill(seconds=0.3)
        assert time.monotonic() - began < 5.0
    assert run.shim.alive(), "the lock is free, and another run could be started"
    assert run.kill(seconds=5.0)


def test_kill_takes_those_who_left_the_session(place):
    run = place.start(
        "setsid sh -c 'setsid sleep 61 & sleep 62' & (sleep 63 &) ; exec sleep 64"
    )
    eventually(lambda: len(run.tree()) >= 5, what="the family")
    family = run.tree()
    assert run.listener in family and run.listener not in orphans_of(run)
    assert run.kill()
    assert not any(who.alive() for who in family)
    assert end_of(run).signal == signal.SIGKILL


def test_kill_takes_processes_that_fork_twice_without_end(place):
    forking = 'forks() { (sh -c "sleep 0.05; $0 &" &) ; (sleep 60 &) ; }; forks; forks'
    run = place.start(f"{forking}; exec sleep 60")
    eventually(lambda: len(run.tree()) > 8, what="the processes")
    assert run.kill()
    assert run.tree() == [] and not run.shim.alive()


def test_kill_works_without_the_shim(place):
    run = place.start("(setsid sleep 60 &) ; (sleep 61 &) ; exec sleep 62")
    mine = run.listener.pid

    def family() -> list[ProcessIdentity]:
        found = run.tree()
        stats = [stat_of(who.pid) for who in found]
        sessions = sorted(int(stat[SESSION]) == mine for stat in stats if stat)
        return found if sessions == [False, True, True] else []

    members = eventually(family, what="the family")
    escaped = [who for who in members if os.getsid(who.pid) != mine]
    run.shim.signal(signal.SIGKILL)
    eventually(lambda: not run.shim.alive(), what="the shim's death")
    assert run.kill()
    # Nobody escapes from a unit.
    assert [who for who in members if who.alive()] == ([] if IN_UNITS else escaped)
    for who in escaped:
        who.signal(signal.SIGKILL)


def test_orphans_outlive_the_program_as_leftovers(place):
    run = place.start("(setsid sleep 60 &) ; exit 4")
    assert end_of(run).exit_code == 4
    (orphan,) = eventually(lambda: orphans_of(run), what="the orphan")
    assert run.shim.alive()
    with pytest.raises(RunnerPresent):
        place.start("exit 0")
    assert run.kill() and not orphan.alive()
    run.forget()
    assert end_of(place.start("exit 0")).exit_code == 0


def test_interrupt_reaches_the_program_alone(place):
    run = place.start(
        "(trap 'touch child-hit; exit' INT; touch up; while :; do sleep 0.02; done) &\n"
        "trap 'exit 33' INT; while :; do sleep 0.02; done"
    )
    eventually(place.path("up").exists, what="the child")
    assert run.interrupt()
    assert end_of(run).exit_code == 33
    assert not place.path("child-hit").exists()


def test_the_descriptor_is_readable_at_the_end(place):
    os.mkfifo(place.path("go"))
    run = place.start("read line < go; exit 2")
    descriptor = run.wait_descriptor()
    assert not select.select([descriptor], [], [], 0.05)[0]
    place.path("go").write_text("\n")
    assert select.select([descriptor], [], [], 10)[0]
    assert run.ended().exit_code == 2  # at once: the caller need not ask again
    os.close(descriptor)


BURN = """while __import__("time").process_time() < 0.4: pass\n"""
HOLD = """x = b"1" * 50_000_000; open("held", "w"); input()"""


def test_usage_counts_the_living_and_the_waited_for(place):
    place.path("burn.py").write_text(BURN)
    place.path("hold.py").write_text(HOLD)
    run = place.start(
        "(setsid $PYTHON -IS burn.py &)\n"
        "$PYTHON -IS burn.py; mkfifo go; $PYTHON -IS hold.py < go; exit 0"
    )
    eventually(place.path("go").exists, what="the pipe")
    with open(place.path("go"), "w") as word:
        eventually(place.path("held").exists, what="the memory")
        used = eventually(
            lambda: (now := run.usage()).cpu_seconds > 0.75 and now,
            what="the CPU time of those who have gone",
        )
        word.write("\n")
    assert used.cpu_seconds < 3
    assert 45_000_000 < used.max_memory_bytes < 150_000_000
    status = end_of(run)
    # The unit's own figures have the shim's part in them.
    assert status.cpu_seconds > used.cpu_seconds - (0.2 if IN_UNITS else 0.0)
    assert 0.75 < status.cpu_seconds < 3
    assert 45_000_000 < status.max_memory_bytes < 150_000_000
    assert status.io_write_bytes >= 0 and status.io_read_bytes >= 0


def test_the_end_counts_those_who_live_on(place):
    place.path("burn.py").write_text(
        f"{BURN}open('burnt', 'w')\n__import__('signal').pause()"
    )
    run = place.start(
        "(setsid $PYTHON -IS burn.py &)\n"
        "while ! [ -e burnt ]; do sleep 0.02; done; exit 0"
    )
    status = end_of(run)
    assert len(orphans_of(run)) == 1
    assert status.cpu_seconds > 0.38
