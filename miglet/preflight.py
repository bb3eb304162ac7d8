"""The checks of a machine before it may take jobs: one small function a check.

A check returns what it found or raises one of the two findings below; all run side by
side within bootstrap.timeout.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from miglet.config.settings import Settings
from miglet.errors import MigletError
from miglet.runner.folder import check_folder
from miglet.security import account

Check = Callable[[Settings], str]

#: Every check by its id, filled as the functions below are defined.
CHECKS: dict[str, Check] = {}


class Failed(MigletError):
    """The machine cannot take jobs; `hint` says what to do."""

    status = "fail"

    def __init__(self, detail: str, hint: str, category: str = "infrastructure"):
        super().__init__(detail)
        self.hint = hint
        self.category = category


def check(function: Check) -> Check:
    """Register a function as the check of its name."""
    CHECKS[function.__name__] = function
    return function


def report(settings: Settings) -> list[dict[str, Any]]:
    """Every check's id, status, milliseconds, detail, hint and category."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        return list(pool.map(lambda name: outcome(name, settings), CHECKS))


def outcome(name: str, settings: Settings) -> dict[str, Any]:
    """What one check found."""
    began = time.monotonic()
    found: dict[str, Any] = {"id": name, "status": "ok", "hint": "", "category": ""}
    try:
        found["detail"] = CHECKS[name](settings)
    except MigletError as error:
        found |= {"status": getattr(error, "status", "fail"), "detail": str(error)}
        found |= {"hint": error.hint, "category": error.category}
    found["milliseconds"] = round((time.monotonic() - began) * 1000, 1)
    return found


@check
def runner_folder(settings: Settings) -> str:
    """The runner is there, complete and executable."""
    directory = Path(settings.runner.directory)
    problems = check_folder(directory, account(settings.runner.user))
    if problems:
        text = "; ".join(each.message for each in problems)
        raise Failed(text, problems[0].hint, "misconfig")
    return str(directory)


@check
def free_disk(settings: Settings) -> str:
    """The jobs have room."""
    free = psutil.disk_usage("/").free
    if free < settings.bootstrap.min_free_disk:
        raise Failed(f"{free} bytes free", "see bootstrap.min_free_disk")
    return f"{free} bytes free"


def table(found: list[dict[str, Any]]) -> str:
    """The report for people, a line a check and one more for each hint."""
    lines = []
    for each in found:
        took = f"{each['milliseconds']:g} ms"
        lines.append(f"{each['status']:4} {each['id']:20} {took:>10}  {each['detail']}")
        if each["hint"]:
            lines.append(f"{'':37}  {each['hint']}")
    return "\n".join(lines)
