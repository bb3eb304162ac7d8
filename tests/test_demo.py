"""``make demo`` and ``make demo-shell``, as somebody runs them who has just arrived."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents import blocks
from tests.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]
LIMIT_SECONDS = 150.0

#: How many words of a line the README shows of each event at least.
SHAPE_WORDS = 5

#: A run as the README shows it.
[README_RUN] = [
    block.text
    for block in blocks(ROOT / "README.rst")
    if block.language == "text" and "VMStarted" in block.text
]


def started(folder: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    """The demonstration, started in another folder than the checkout's."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SHELL": "/bin/sh"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def test_two_demonstrations_prove_all_they_promise_at_the_same_time(
    tmp_path: Path,
) -> None:
    both = [started(tmp_path), started(tmp_path)]
    for each in both:
        output, _ = each.communicate(timeout=LIMIT_SECONDS)
        assert each.returncode == 0, output
        _, _, summary = output.partition("What was proved\n")
        assert summary.count("  yes  ") == 10 and "What to try next" in summary
        assert "\x1b" not in output
        assert shapes(README_RUN) <= shapes(output)


def shapes(output: str) -> set[str]:
    """The beginnings of the lines of a run, without clock, numbers and values."""
    found = set()
    for line in output.splitlines():
        bare = re.sub(r"^\d\d:\d\d:\d\d +", "", line)
        words = bare.partition(" +")[0].split()[:SHAPE_WORDS]
        found.add(" ".join(re.sub(r"=.*", "=", re.sub(r"\d+", "0", w)) for w in words))
    return found


def test_the_shell_has_the_machine_s_commands(tmp_path: Path) -> None:
    shell = started(tmp_path, "shell", stdin=subprocess.PIPE)
    commands = (
        "miglet-ctl status\n"
        "miglet config\n"
        "job 0.5 hello\n"
        "events --follow | grep -m1 JobCompleted\n"
        "miglet-controller vms --token-file TOKEN-FILE\n"
        "miglet-ctl log-level debug\n"
        "agent-log -n 1000\n"
        "order drain\n"
        "exit 3\n"
    )
    output, _ = shell.communicate(commands, timeout=LIMIT_SECONDS)
    assert shell.returncode == 0, "the status of the shell is nobody's error"
    assert re.search(r"^vm-1 +idle ", output, re.MULTILINE), output
    assert "idle -> job_running on " in output
    assert "state       idle since" in output
    assert re.search(r"^pool_id +pool-\d+ +.*miglet\.yaml", output, re.MULTILINE), (
        output
    )
    assert "the runner gets the job hello, which takes 0.5 s\n" in output
    assert "result=succeeded" in output
    assert output.endswith("The demonstration has ended; nothing is left running.\n")
