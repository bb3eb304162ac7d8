"""The steps of a job, and the file that each of them is run from."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from tests.paths import PYTHON, ROOT

#: Keys of a job that describe its step when it lists no steps.
STEP_KEYS = {
    "seconds",
    "burn_cpu",
    "allocate_mb",
    "write_mb",
    "leave_process",
    "hold",
    "ignores",
    "output",
    "script",
    "code",
}


def steps_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The job's steps; `result: Failed` makes a single step fail."""
    if "steps" in job:
        return job["steps"]
    step = {key: value for key, value in job.items() if key in STEP_KEYS}
    code = 1 if job.get("result") == "Failed" else 0
    return [{"name": "Run work", "code": code, **step}]


def write_step(root: Path, folder: Path, step: dict[str, Any]) -> list[str]:
    """Write the step's script into `folder`; the command line that runs it.

    Like every `run:` step it is run by bash, which outlives a SIGINT while its child
    lives, and is outlived by its child when it dies of a SIGTERM.
    """
    stem = folder / os.urandom(16).hex()
    script = stem.with_suffix(".sh")
    deaf = " ".join(step.get("ignores", []))
    trap = f"trap '' {deaf}\n" if deaf else ""
    script.write_text(trap + step.get("script", f"{work_command(root, stem, step)}\n"))
    return ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]


def work_command(root: Path, stem: Path, step: dict[str, Any]) -> str:
    """Write the program that does what the plan wants; the shell's words to run it."""
    program = stem.with_suffix(".py")
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.runner_double.step import work\n"
        f"sys.exit(work({str(root)!r}, {step!r}))\n"
    )
    return shlex.join([PYTHON, "-ISE", str(program)])
