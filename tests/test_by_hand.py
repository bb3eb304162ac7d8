"""``docs/howto/by-hand.rst``, carried out from top to bottom."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agent_process import BIN
from tests.documents import blocks
from tests.paths import ROOT
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAGE = ROOT / "docs" / "howto" / "by-hand.rst"
LIMIT_SECONDS = 60.0


@pytest.fixture
def steps() -> Iterator[list[str]]:
    """The page's blocks of shell, in a folder and with a port of their own."""
    with tempfile.TemporaryDirectory(prefix="try-") as folder, socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        Path(folder).rmdir()
        try:
            yield [placed(each.text, folder, port) for each in blocks(PAGE)]
        finally:
            Path(folder).mkdir(exist_ok=True)


def placed(text: str, folder: str, port: int) -> str:
    """A block, with another folder and another port, which the page leaves out."""
    text = text.replace("/tmp/try", folder).replace(
        "127.0.0.1:8080", f"127.0.0.1:{port}"
    )
    text = text.replace("$PWD/.venv/bin", str(BIN))
    text = text.replace(" serve ", f" serve --listen 127.0.0.1:{port} ")
    return re.sub(
        "(controller events .*)", rf"\1 --endpoint http://127.0.0.1:{port}", text
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "MIGLET_CLOUD": "none"}


def run(step: str) -> str:
    """What a block prints; it must succeed."""
    ran = subprocess.run(
        ["sh", "-eu"],
        input=step,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@contextmanager
def terminal(step: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A block that keeps running, as in a terminal of its own."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {step}"],
            cwd=ROOT,
            env=environment(),
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_SECONDS)


def test_the_page_leads_to_a_job_and_an_orderly_end(steps, tmp_path):
    place, prepare, serve, configure, agent, work = steps
    run(prepare)
    controller_log, agent_log = tmp_path / "controller.log", tmp_path / "agent.log"
    with terminal(serve, controller_log):
        eventually(lambda: "listening on" in controller_log.read_text())
        assert "This machine can take jobs." in run(configure)
        with terminal(agent, agent_log) as process:
            eventually(lambda: "registering_runner -> idle" in agent_log.read_text())
            assert "RunnerRegistered" in run(place + work)
            assert process.wait(LIMIT_SECONDS) == 0
        _, _, events = work.rpartition("\nmiglet-controller ")
        assert "result=succeeded cause=success" in run(f"miglet-controller {events}")
