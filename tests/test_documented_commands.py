"""The documented commands for a running machine, given to one: they do what is said."""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.agent_process import BIN, Agent
from tests.demo import VM, machine
from tests.documents import Command
from tests.paths import ROOT
from tests.reference_process import ReferenceController
from tests.reference_samples import event
from tests.runner_double.double import Double
from tests.support import eventually
from tests.test_documented_blocks import COMMANDS, NOT_HERE, PARSERS, is_carried_out

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: What an example calls the machine, and where it has the controller's token.
MACHINES = ("first-machine", "VM")
TOKEN_FILES = ("/etc/miglet/token", "TOKEN-FILE", "token")

INTERRUPTED = 130

#: Those that end the machine.
ENDING = ("drain", "Drain", "shutdown")

LIMIT_SECONDS = 60.0


@dataclass
class Machine:
    """A machine as somebody has it who reads the documents."""

    controller: ReferenceController
    agent: Agent
    double: Double
    folder: Path
    #: The workers that a command has named.
    named: set[int] = field(default_factory=set)

    def start(self, command: Command) -> subprocess.Popen[str]:
        """Start a command as a process."""
        return subprocess.Popen(
            self.words_of(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment(),
        )

    def result(self, command: Command) -> tuple[int, str]:
        """The exit status of a command, and what it printed."""
        process = self.start(command)
        said, _ = process.communicate("secret\n", timeout=LIMIT_SECONDS)
        return process.returncode, said

    def words_of(self, command: Command) -> list[str]:
        """A command's words, with this machine's names in place of the example's."""
        program, *words = command.words
        if command.program == "miglet-controller":
            names = {
                **dict.fromkeys(MACHINES, VM),
                **dict.fromkeys(TOKEN_FILES, str(self.controller.token_path)),
            }
            words = [names.get(word, word) for word in words]
            words += ["--endpoint", self.controller.endpoint]
        if command.program == "kill":
            pid = self.pid_of_a_worker()
            words = [pid if word == "PID" else word for word in words]
        if command.program == "install":
            group = grp.getgrgid(os.getgid()).gr_name
            etc = self.folder / "etc"
            etc.mkdir(exist_ok=True)
            words = [re.sub("^/etc/miglet", str(etc), word) for word in words]
            words = [group if word == "miglet-net" else word for word in words]
        return [program, *words]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}",
            "MIGLET_CONFIG": str(self.agent.config),
            "MIGLET_SOCKET": str(self.agent.socket),
            "MIGLET_CLOUD": "none",
        }

    def pid_of_a_worker(self) -> str:
        """Another one each time: the command before this one may have killed it."""
        pid = eventually(self._new_worker).pid
        self.named.add(pid)
        return str(pid)

    def _new_worker(self) -> psutil.Process | None:
        sampler = self.agent.workers().get("metrics-sampler")
        return sampler if sampler and sampler.pid not in self.named else None


@contextmanager
def idle_machine(folder: Path) -> Iterator[Machine]:
    """A machine whose runner waits for a job."""
    with machine({"listener": {"scenario": "idle"}}) as (controller, agent, double):
        agent.start()
        agent.until("idle")
        for name in ("machine.key", "new-token"):
            (folder / name).write_text("a secret\n")
        line = f"[    1.23] MIGLET-EVENT {json.dumps(event())}\r\n"
        (folder / "console.log").write_text(line)
        yield Machine(controller, agent, double, folder)


def to_be_run(*programs: str) -> list[Command]:
    """The commands of these programs, each once as it is written."""
    found = {
        each.text: each
        for each in COMMANDS
        if each.program in programs
        and not (each.not_run or each.text.startswith(NOT_HERE))
        and not is_carried_out(each.block)
    }
    return list(found.values())


def ends_the_machine(command: Command) -> bool:
    return any(word in ENDING for word in command.words)


OF_A_MACHINE = to_be_run(*PARSERS, "kill", "install")
ENDS = [each for each in OF_A_MACHINE if ends_the_machine(each)]
[WATCH] = [each for each in OF_A_MACHINE if "watch" in each.words]
QUESTIONS = [each for each in OF_A_MACHINE if each not in (*ENDS, WATCH)]


def test_every_command_that_leaves_the_machine_running_succeeds(tmp_path):
    with idle_machine(tmp_path) as machine:
        results = {str(each): machine.result(each) for each in QUESTIONS}
        machine.agent.until("idle")
    assert len(results) > 15
    assert {name: said for name, (status, said) in results.items() if status} == {}


def test_watch_shows_each_state_until_it_is_interrupted(tmp_path):
    with idle_machine(tmp_path) as machine:
        watch = machine.start(WATCH)
        with interrupted_after(LIMIT_SECONDS, watch):
            machine.double.push_job({"seconds": 2.0})
            assert watch.stdout
            assert re.match(r"[\d:]{8}  [a-z_]+  ", watch.stdout.readline())
            watch.send_signal(signal.SIGINT)
            assert watch.wait() == INTERRUPTED
        watch.communicate()


@contextmanager
def interrupted_after(seconds: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """Sees to it that a process which prints nothing is not waited for for ever."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize("command", ENDS, ids=str)
def test_every_command_that_ends_the_machine_ends_it_in_order(command, tmp_path):
    with idle_machine(tmp_path) as machine:
        status, said = machine.result(command)
        assert status == 0, said
        assert machine.agent.wait() == 0
        assert machine.controller.events(VM)[-1]["type"] == "VMStopped"


#: Files that the guide has the reader write; tests/test_contributing.py runs them.
NEW_FILES = {
    line.split()[-1]
    for line in (ROOT / "CONTRIBUTING.rst").read_text().splitlines()
    if line.startswith(".. new file ")
}

CALLS_OF_PYTEST = [
    each
    for each in to_be_run("python")
    if "pytest" in each.words and NEW_FILES.isdisjoint(each.words)
]


@pytest.mark.parametrize("command", CALLS_OF_PYTEST, ids=str)
def test_every_documented_call_of_pytest_finds_tests(command):
    collected = subprocess.run(
        [sys.executable, *command.words[1:], "--collect-only"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert collected.returncode == 0, collected.stdout


def test_the_log_of_an_end_to_end_test_is_where_contributors_look_for_it():
    [test] = [each for each in to_be_run("python") if "--basetemp=" in each.text]
    [search] = to_be_run("grep")
    # Not below `tmp_path`: the path of a socket has no room for two of these.
    with tempfile.TemporaryDirectory(prefix="failed-") as mine:
        found = found_after(test, search, "/tmp/failed", mine)
    assert "idle -> job_running" in found


def found_after(test: Command, search: Command, place: str, mine: str) -> str:
    """What a search finds in the folder of a test, both moved to another place."""
    ran = subprocess.run(
        [sys.executable, *(word.replace(place, mine) for word in test.words[1:])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert ran.returncode == 0, ran.stdout
    return subprocess.run(
        [shutil.which("sh") or "/bin/sh", "-c", search.text.replace(place, mine)],
        capture_output=True,
        text=True,
    ).stdout
