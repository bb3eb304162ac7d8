"""The job's log: pages under `_diag` until they are uploaded, then with the service.

A page that is still there after a crash holds the output of the step that was running.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.runner_double.console import stamp


class JobLog:
    """The log of one job; `double/job-JOB.log` is what the service has of it."""

    def __init__(self, root: Path, job_id: str) -> None:
        self._pages = root / "_diag" / "pages"
        self._pages.mkdir(parents=True, exist_ok=True)
        self._timeline = str(uuid.uuid4())
        self._uploaded = root / "double" / f"job-{job_id}.log"
        self._page = self._fresh_page()

    def line(self, text: str) -> None:
        self.write(f"{text}\n".encode())

    def write(self, output: bytes) -> None:
        with self._page.open("ab") as page:
            page.write(f"{stamp()} ".encode() + output if output else b"")

    def upload(self) -> None:
        """The step is over: its page goes to the service."""
        if self._page.exists():
            with self._uploaded.open("ab") as target:
                target.write(self._page.read_bytes())
            self._page.unlink()
        self._page = self._fresh_page()

    def _fresh_page(self) -> Path:
        return self._pages / f"{self._timeline}_{uuid.uuid4()}_1.log"
