"""The steps of a job, and the file that each of them is run from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.paths import ROOT

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
    """Write the step's script into `folder`; the command line that runs it."""
    stem = folder / os.urandom(16).hex()
    if "script" in step:
        script = stem.with_suffix(".sh")
        script.write_text(step["script"])
        return ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
    script = stem.with_suffix(".py")
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.runner_double.step import work\n"
        f"sys.exit(work({str(root)!r}, {step!r}))\n"
    )
    return [sys.executable, "-ISE", str(script)]
