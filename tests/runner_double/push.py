"""A command: give the idle runner in ROOT a job that ends with RESULT.

Usage: python -m tests.runner_double.push ROOT RESULT [SECONDS] [NAME]
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.runner_double.double import Double


def main(root: str, result: str, seconds: str = "10", name: str = "build") -> None:
    job = {"result": result, "seconds": float(seconds), "name": name}
    Double(Path(root)).push_job(job)
    print(f"the runner gets the job {name}, which takes {float(seconds):g} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
