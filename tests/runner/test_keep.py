"""The program that launchers run: isolated, and it finds MIGlet beside itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from miglet.runner import keep

FILE = Path(keep.__file__)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As launchers start it, in a folder and an environment of somebody else."""
    return subprocess.run(
        [sys.executable, "-ISE", str(FILE), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PYTHONPATH": str(cwd)},
        timeout=30,
    )


def test_it_runs_the_module_of_its_own_folder(tmp_path):
    done = run("recorder", cwd=tmp_path)
    assert done.returncode == 1
    assert "miglet/runner/recorder.py" in done.stderr or "main()" in done.stderr
    assert "ModuleNotFoundError" not in done.stderr


def test_a_module_that_a_job_puts_in_the_way_is_not_taken(tmp_path):
    (tmp_path / "miglet").mkdir()
    (tmp_path / "miglet" / "__init__.py").write_text("print('hijacked')")
    (tmp_path / "json.py").write_text("print('hijacked')")
    done = run("recorder", cwd=tmp_path)
    assert "hijacked" not in done.stdout + done.stderr


def test_importing_it_runs_nothing():
    done = subprocess.run(
        [sys.executable, "-c", "import miglet.runner.keep as k; print(dir(k))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "here" not in done.stdout
