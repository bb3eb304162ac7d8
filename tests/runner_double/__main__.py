"""A command: lay out a double of the runner in FOLDER, which waits for a job.

Usage: python -m tests.runner_double FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.runner_double.double import install


def main(folder: str) -> None:
    double = install(Path(folder), {"listener": {"scenario": "idle"}})
    print(f"a double of actions/runner is in {double.root}")


if __name__ == "__main__":
    main(*sys.argv[1:])
