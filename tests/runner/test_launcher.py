"""The process launcher: what it starts, and that there is only ever one."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from miglet.runner.identity import ProcessIdentity
from miglet.runner.installation import FolderUnusable
from miglet.runner.launcher import (
    CONFIGURATION_UNIT,
    RUNNER_OOM_SCORE_ADJ,
    RUNNER_UNIT,
    Launcher,
    LaunchFailed,
    LaunchSpec,
    configuration_launcher,
    listening,
    runner_launcher,
    start_unit,
)
from miglet.runner.run import RunnerPresent
from miglet.supervisor.privileges import account
from tests.launching import (
    Place,
    as_root,
    end_of,
    forked,
    gone,
    killed,
    launching,
    starts,
)
from tests.preflight_machine import settings_of
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.units]


@pytest.fixture
def place() -> Iterator[Place]:
    with launching() as made:
        yield made


@pytest.mark.parametrize("code", [0, 1, 7, 102, 255])
def test_the_exit_code_is_learnt(place, code):
    status = end_of(place.start(f"exit {code}"))
    assert (status.exit_code, status.signal, status.shell_code) == (code, None, code)
    assert status.known and not status.reason


def test_the_signal_that_ended_it_is_learnt(place):
    run = place.start("kill -KILL $$")
    status = end_of(run)
    assert (status.exit_code, status.signal, status.shell_code) == (None, 9, 137)


def test_a_program_that_is_gone_or_not_executable_ends_as_in_a_shell(place):
    spec = place.spec("exit 0")
    program = Path(spec.argv[0])
    program.write_text("#!/no/such/interpreter\n")
    assert end_of(place.launcher.start(spec)).exit_code == 127
    run = place.launcher.find()
    assert "cannot start" in run.printed()
    run.kill()
    run.forget()
    program.write_bytes(b"\x7fELF rubbish")
    assert end_of(place.launcher.start(spec)).exit_code == 126


def test_a_folder_without_the_runner_is_refused_with_a_hint(place):
    spec = place.spec("exit 0")
    os.chmod(spec.argv[0], 0o644)
    with pytest.raises(FolderUnusable, match="not executable") as refusal:
        place.launcher.start(spec)
    assert "chmod" in refusal.value.hint
    os.unlink(spec.argv[0])
    with pytest.raises(FolderUnusable, match="there is no"):
        place.launcher.start(spec)
    shutil.rmtree(place.directory)
    with pytest.raises(FolderUnusable, match="does not exist"):
        place.launcher.start(spec)
    assert place.launcher.find() is None


def test_the_run_survives_the_death_of_its_starter_and_its_end_is_learnt(place):
    os.mkfifo(place.path("go"))
    starter = forked(lambda: place.start("read line < go; echo bye; exit 37"))
    run = eventually(place.launcher.find, what="the run")
    killed(starter)
    assert run.alive()
    place.path("go").write_text("go\n")
    assert end_of(place.launcher.find()).exit_code == 37
    assert run.printed() == "bye\n"


def test_a_starter_that_died_before_the_answer_loses_nothing(place):
    spec = place.spec("exit 38")
    with place.launcher.lock() as lock:
        place.launcher.folder.mkdir()
        hearing, answer = os.pipe()
        os.close(hearing)
        place.launcher.start_shim(spec, place.launcher.folder, lock, answer)
        os.close(answer)
    assert end_of(place.launcher.find()).exit_code == 38


def test_an_end_that_nobody_saw_is_learnt_later(place):
    starter = forked(lambda: place.start("exit 37"))
    run = eventually(place.launcher.find, what="the run")
    killed(starter)
    eventually(lambda: not run.shim.alive(), what="the end of the shim")
    found = place.launcher.find()
    assert end_of(found).exit_code == 37
    found.forget()
    assert place.launcher.find() is None


@pytest.mark.parametrize("nth", range(12))
def test_a_starter_killed_at_any_moment_leaves_one_run_or_none(place, nth):
    spec = place.spec("echo x >> started; exec sleep 60")
    pid = forked(lambda: place.launcher.start(spec))
    select.select([], [], [], nth * 0.005)
    killed(pid)
    if place.launcher.find() is None:
        place.launcher.start(spec)
    else:
        with pytest.raises(RunnerPresent):
            place.launcher.start(spec)
    eventually(lambda: starts(place), what="the program")
    assert starts(place) == "x\n"


def test_of_two_concurrent_starts_one_wins(place):
    spec = place.spec("echo x >> started; exec sleep 60")
    verdicts, writer = os.pipe()

    def attempt() -> None:
        try:
            place.launcher.start(spec)
            os.write(writer, b"+")
        except RunnerPresent:
            os.write(writer, b"-")

    starters = [forked(attempt) for _ in range(4)]
    heard = b""
    while len(heard) < 4:
        assert select.select([verdicts], [], [], 10)[0]
        heard += os.read(verdicts, 4)
    for pid in starters:
        killed(pid)
    os.close(verdicts)
    os.close(writer)
    assert sorted(heard) == sorted(b"+---")
    eventually(lambda: starts(place), what="the program")
    assert starts(place) == "x\n"


def test_no_second_run_before_the_first_is_forgotten(place):
    run = place.start("exit 0")
    end_of(run)
    eventually(lambda: gone(run), what="the end of the shim")
    with pytest.raises(RunnerPresent):
        place.start("exit 0")
    run.forget()
    assert place.start("exit 3").run_id == "run-1"


def test_a_run_of_another_boot_is_none(place, tmp_path):
    run = place.start("exec sleep 60")
    other = tmp_path / "boot_id"
    other.write_text("00000000-0000-0000-0000-000000000000\n")
    assert not run.listener.alive(str(other))
    assert not run.listener.signal(signal.SIGKILL, str(other))
    run.kill()
    assert Launcher(place.root, boot_id_path=str(other)).find() is None
    assert not run.folder.exists()


def test_half_a_run_whose_starter_died_makes_way(place):
    place.launcher.folder.mkdir(parents=True)
    (place.launcher.folder / "run.json").write_text('{"run_id": "x"')
    assert place.launcher.find() is None
    assert end_of(place.start("exit 5")).exit_code == 5


@pytest.mark.parametrize("python", ["/bin/false", "/no/such/python"])
def test_a_shim_that_does_not_come_up_is_reported_and_leaves_no_run(
    place, monkeypatch, python
):
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(LaunchFailed):
        place.start("exit 0")
    monkeypatch.undo()
    assert place.launcher.find() is None
    assert end_of(place.start("exit 8")).exit_code == 8


def test_nothing_of_ours_reaches_the_program(place, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/secret")
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = place.start("exec sleep 60")
    finally:
        os.close(leaked)
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1, signal.SIGTERM])
    proc = Path(f"/proc/{run.listener.pid}")
    eventually(lambda: b"sleep" in (proc / "cmdline").read_bytes(), what="the program")
    # while it starts it has its libraries open, one after the other
    eventually(
        lambda: sorted(os.listdir(proc / "fd")) == ["0", "1", "2"],
        what="nothing but its three streams",
    )
    assert os.readlink(proc / "fd/0") == "/dev/null"
    status = dict(
        line.split(":\t", 1) for line in (proc / "status").read_text().splitlines()
    )
    settable = sum(1 << number - 1 for number in signal.valid_signals())
    assert int(status["SigIgn"], 16) & settable == int(status["SigBlk"], 16) == 0
    assert status["NoNewPrivs"] == "0"
    assert os.getsid(run.listener.pid) == run.listener.pid
    environ = (proc / "environ").read_bytes().split(b"\0")
    assert {item.partition(b"=")[0] for item in environ if item} <= {
        b"PATH",
        b"PYTHON",
        b"PWD",
        b"OLDPWD",
        b"SHLVL",
        b"_",
    }
    assert os.readlink(proc / "cwd") == str(place.directory)


def test_the_environment_is_written_nowhere(place):
    spec = place.spec("exec sleep 60")
    secret = "s3cret-token-value"
    spec = LaunchSpec(**{**vars(spec), "environment": {"TOKEN": secret}})
    assert secret not in repr(spec)
    run = place.launcher.start(spec)
    for path in place.root.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    for who in ("environ", "cmdline"):
        assert secret.encode() not in Path(f"/proc/{run.shim.pid}/{who}").read_bytes()


@pytest.fixture
def groups_of_our_own() -> Iterator[None]:
    """Supplementary groups that the runner's user must not inherit."""
    before = os.getgroups()
    os.setgroups([*before, 4])
    yield
    os.setgroups(before)


@as_root
def test_it_runs_as_the_runners_user_with_its_groups(place, groups_of_our_own):
    nobody = account("nobody")
    place.directory.chmod(0o777)
    run = place.start(
        "id -u > ids; id -G >> ids; umask >> ids; echo to-stdout > /dev/stdout;"
        " echo to-stderr > /dev/stderr; kill -KILL $PPID; exit 9",
        nobody,
    )
    assert end_of(run).exit_code == 9
    groups = " ".join(map(str, os.getgrouplist("nobody", nobody.gid)))
    assert place.path("ids").read_text().split("\n")[:3] == [
        str(nobody.uid),
        groups,
        "0022",
    ]
    assert "to-stdout\nto-stderr\n" in run.printed()
    assert stat.S_IMODE(run.folder.stat().st_mode) == 0o700
    assert run.folder.stat().st_uid == 0


@as_root
def test_a_folder_that_its_user_cannot_enter_is_refused(place):
    spec = place.spec("exit 0", account("nobody"))
    place.directory.chmod(0o700)
    with pytest.raises(FolderUnusable, match="user nobody may not enter"):
        place.launcher.start(spec)


def test_start_returns_with_the_identity_of_a_living_program(place):
    run = place.start("exec sleep 60")
    assert run.alive() and run.shim.alive()
    assert run.ended() is None
    assert (run.run_id, run.name) == ("run-1", "runner-a")
    assert run.listener == ProcessIdentity.of(run.listener.pid)
    assert run.directory == place.directory
    assert place.launcher.find() == run


def may_protect() -> bool:
    """Whether we have CAP_SYS_RESOURCE, bit 24 (linux/capability.h)."""
    status = Path("/proc/self/status").read_text()
    (effective,) = re.findall("CapEff:\\s*([0-9a-f]+)", status)
    return bool(int(effective, 16) >> 24 & 1)


@as_root
@pytest.mark.parametrize(
    "score",
    [
        250,
        pytest.param(
            RUNNER_OOM_SCORE_ADJ,
            marks=pytest.mark.skipif(not may_protect(), reason="no CAP_SYS_RESOURCE"),
        ),
    ],
)
def test_memory_is_taken_from_a_step_before_the_runner(place, score):
    show = "cat /proc/$$/oom_score_adj"
    step = f"{show}; echo 500 > /proc/$$/oom_score_adj; {show}"
    spec = place.spec(f"{show}; sh -c '{step}'", account("nobody"))
    run = place.launcher.start(replace(spec, oom_score_adj=score))
    eventually(run.ended, what="the end of the run")
    assert run.printed() == f"{score}\n{score}\n500\n"


def test_systemd_expands_nothing_in_a_command_line():
    folder = Path('/run/a "b" $HOME/current')
    command = RUNNER_UNIT.command("u.service", "vm-1", folder, "order-1")
    assert command[-1] == "order-1"
    assert command[-3] == '/run/a "b" $$HOME/current'
    (stop,) = [word for word in command if "ExecStopPost=" in word]
    assert stop.endswith(r'"recorder" "/run/a \"b\" $$HOME/current"')
    assert stop.startswith("--property=ExecStopPost=-")


def test_a_systemd_that_does_not_answer_is_a_failed_launch():
    with pytest.raises(LaunchFailed, match="cannot be asked"):
        start_unit(("/no/such/systemd-run",))
    with pytest.raises(LaunchFailed, match="no unit today"):
        start_unit(("sh", "-c", "echo no unit today >&2; exit 1"))


def test_a_socket_may_have_a_longer_path_than_an_address(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with listening(folder, "order-1") as listener:
        assert listener.family == socket.AF_UNIX
        assert (folder / "order-1").is_socket()
    assert list(folder.iterdir()) == []


def test_the_runner_and_its_configuration_are_never_taken_for_each_other(tmp_path):
    settings = settings_of(tmp_path, runner__isolation="systemd")
    runner = runner_launcher(settings)
    configuration = configuration_launcher(settings)
    assert runner.start_shim == RUNNER_UNIT.start
    assert configuration.start_shim == CONFIGURATION_UNIT.start
    assert runner.root != configuration.root
