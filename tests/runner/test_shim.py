"""The shim as the launcher starts it: its output file, its duties, its own size."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from miglet.runner import keep, shim
from miglet.runner.launcher import RUNNER_UNIT, Launcher, LaunchSpec
from miglet.runner.procfs import (
    PARENT,
    START,
    descendants,
    is_running,
    kill_descendants,
    send_signal,
    snapshot,
    stat_of,
)
from miglet.runner.run import Run
from miglet.runner.shim import OUTPUT_BYTES, Output
from tests.launching import as_root, begin_of, orphans_of
from tests.paths import PYTHON
from tests.support import eventually, open_files

pytestmark = [pytest.mark.integration, pytest.mark.units]

MIB = 1 << 20


@pytest.fixture
def launcher(tmp_path) -> Iterator[Launcher]:
    made = Launcher(tmp_path / "runtime", begin_of(RUNNER_UNIT))
    yield made
    if run := made.find():
        run.kill()


def started(launcher: Launcher, tmp_path: Path, program: str) -> Run:
    """Launch a Python program."""
    script = tmp_path / "program.py"
    script.write_text(program)
    argv = (PYTHON, "-IS", str(script))
    return launcher.start(LaunchSpec("1", "a", tmp_path, argv, {}))


def printed_files(run: Run) -> list[Path]:
    return [p for p in run.folder.iterdir() if p.name.startswith("output")]


def test_a_flood_without_newline_stays_capped_and_its_last_line_is_there(
    launcher, tmp_path
):
    flood = (
        "import os\n"
        "chunk = b'x' * (1 << 20)\n"
        "for _ in range(100):\n"
        "    left = chunk\n"
        "    while left: left = left[os.write(1, left):]\n"
        "os.write(2, b'\\nthe last line\\n')\n"
    )
    run = started(launcher, tmp_path, flood)
    sizes = []

    def over():
        # A rotation renames a file between the list and the look.
        with contextlib.suppress(FileNotFoundError):
            sizes.append(sum(path.stat().st_size for path in printed_files(run)))
        return run.ended()

    assert eventually(over, seconds=60, what="the end of the flood").exit_code == 0
    assert max(sizes) <= 2 * OUTPUT_BYTES
    assert run.printed().endswith("xxx\nthe last line\n")
    assert len(run.printed(MIB)) == MIB


def test_what_is_printed_is_kept_byte_by_byte_across_a_rotation(launcher, tmp_path):
    lines = (
        "import os\n"
        "for n in range(90000):\n"
        "    os.write(1 + n % 2, b'%08d %s\\n' % (n, b'.' * 60))\n"
    )
    run = started(launcher, tmp_path, lines)
    eventually(run.ended, seconds=60, what="the end")
    kept = b"".join((run.folder / name).read_bytes() for name in ("output.1", "output"))
    assert len(printed_files(run)) == 2 and len(kept) > OUTPUT_BYTES
    numbers = [int(line[:8]) for line in kept.splitlines()[1:]]
    assert numbers == list(range(numbers[0], 90000))


def test_the_last_words_are_on_the_disk_before_the_end_is_reported(launcher, tmp_path):
    words = "import os; os.write(1, b'a' * 60000 + b'\\nresult\\n'); os._exit(3)"
    run = started(launcher, tmp_path, words)
    while run.ended() is None:
        pass
    assert run.printed().endswith("\nresult\n")


def test_an_orphan_that_holds_the_pipe_does_not_delay_the_end(launcher, tmp_path):
    orphan = (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while True: os.write(1, b'noise' * 1000)\n"
        "os.write(1, b'\\nlast\\n')\n"
        "os._exit(6)\n"
    )
    run = started(launcher, tmp_path, orphan)
    assert eventually(run.ended, what="the end").exit_code == 6
    sizes = [path.stat().st_size for path in printed_files(run)]
    (living,) = orphans_of(run)

    def written() -> int:
        words = Path(f"/proc/{living.pid}/io").read_text().split()
        return int(words[words.index("wchar:") + 1])

    before = written()
    eventually(lambda: written() > before + MIB, what="more of its noise")
    assert [path.stat().st_size for path in printed_files(run)] == sizes


def test_the_end_is_recorded_on_a_full_disk(tmp_path):
    folder = str(tmp_path)
    shim.reserve(folder, "exit.json")
    room = Path(shim.reserve(folder, "exit.json")).stat()
    shim.record(folder, "exit.json", {"exit_code": 3})
    found = (tmp_path / "exit.json").stat()
    assert (found.st_ino, found.st_size) == (room.st_ino, room.st_size)
    assert json.loads((tmp_path / "exit.json").read_bytes()) == {"exit_code": 3}


def test_a_full_disk_keeps_the_newest_output(tmp_path):
    output = Output(str(tmp_path))
    (tmp_path / "output.1").write_bytes(b"old")
    real, output.file = output.file, os.open("/dev/full", os.O_WRONLY)
    output.write(b"lost")
    assert (tmp_path / "output.1").read_bytes() == b""
    os.close(output.file)
    output.file = real
    output.write(b"kept")
    assert (tmp_path / "output").read_bytes() == b"kept"


def test_sigterm_ends_all_and_then_itself(launcher, tmp_path):
    family = (
        "import os, signal\n"
        "for _ in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        signal.pause()\n"
        "open('up', 'w')\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pause()\n"
    )
    run = started(launcher, tmp_path, family)
    eventually(lambda: (tmp_path / "up").exists(), what="the family")
    doomed = eventually(lambda: len(run.tree()) == 6 and run.tree(), what="orphans")
    assert run.shim.signal(signal.SIGTERM)
    eventually(lambda: not run.shim.alive(), what="the end of the shim")
    assert not any(who.alive() for who in doomed)
    assert run.ended().signal == signal.SIGKILL


def test_the_time_of_an_orphan_that_ends_with_its_process_is_counted():
    code = "while __import__('time').process_time() < 0.2: pass"
    before = shim.uncollected_cpu_seconds()
    with subprocess.Popen([PYTHON, "-ISc", code]) as orphan:
        os.waitid(os.P_PID, orphan.pid, os.WEXITED | os.WNOWAIT)
        counted = shim.uncollected_cpu_seconds() - before
    assert 0.15 < counted < 2.0


def test_it_reaps_many_orphans_at_once(launcher, tmp_path):
    forking = (
        "import os, signal\n"
        "for _ in range(300):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: os._exit(0)\n"
        "        os._exit(0)\n"
        "while True:\n"
        "    try: os.wait()\n"
        "    except ChildProcessError: break\n"
        "open('up', 'w')\n"
        "signal.pause()\n"
    )
    run = started(launcher, tmp_path, forking)
    eventually(lambda: (tmp_path / "up").exists(), seconds=30, what="the processes")

    def children() -> list[int]:
        stats = {int(n): stat_of(n) for n in os.listdir("/proc") if n.isdigit()}
        return [p for p, s in stats.items() if s and int(s[PARENT]) == run.shim.pid]

    eventually(lambda: children() == [run.listener.pid], what="no zombies")


def test_other_signals_do_not_disturb_it(launcher, tmp_path):
    run = started(launcher, tmp_path, "import signal; signal.pause()")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT):
        assert run.shim.signal(number)
    run.listener.signal(signal.SIGKILL)
    assert eventually(run.ended, what="the end").signal == signal.SIGKILL


def test_it_is_small_and_holds_nothing_but_its_own(launcher, tmp_path):
    run = started(launcher, tmp_path, "import signal; signal.pause()")
    proc = Path(f"/proc/{run.shim.pid}")
    (pss,) = (
        int(line.split()[1])
        for line in (proc / "smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
    assert pss < 8192
    assert (proc / "comm").read_text() == "miglet-shim\n"
    assert os.readlink(proc / "cwd") == "/"
    assert os.getsid(run.shim.pid) not in (os.getsid(0), run.listener.pid)

    def files() -> list[str]:
        """All but the socket of the process connector, which not every kernel has."""
        return [
            each for each in open_files(run.shim.pid) if not each.startswith("socket:")
        ]

    # the ends of the wakeup pipe, one of the output's, 0 and 1, and three of its folder
    eventually(lambda: len(files()) == 8, what="the end of its report")
    assert len(open_files(run.shim.pid)) <= 9
    own = sorted(Path(each).name for each in files() if str(launcher.root) in each)
    assert own == ["lock", "output", "shim.err"]


def test_importing_the_entry_starts_nothing():
    assert keep.__doc__ and not hasattr(keep, "folder")


@pytest.mark.parametrize(
    ("inherited", "wanted", "own"),
    [
        ("-900\n", None, "0"),
        ("0\n", None, "0\n"),
        ("500\n", None, "500\n"),
        ("-900\n", -300, "-300"),
        ("0\n", 300, "300"),
    ],
)
def test_a_protected_agent_does_not_protect_its_jobs(tmp_path, inherited, wanted, own):
    score = tmp_path / "oom_score_adj"
    score.write_text(inherited)
    shim.set_oom_score(wanted, str(score))
    assert score.read_text() == own


@as_root
def test_who_may_not_protect_the_runner_launches_it_all_the_same(tmp_path):
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        shim.set_oom_score(-300)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_process_is_distinguished_from_its_successor():
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    start = int(stat_of(pid)[START])
    assert not send_signal(pid, start + 1, signal.SIGKILL)
    assert is_running(stat_of(pid)) and pid in descendants(os.getpid(), snapshot())
    assert kill_descendants(os.getpid()) >= 1
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert not send_signal(pid, start, signal.SIGKILL) and stat_of(pid) is None
