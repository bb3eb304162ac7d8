"""What a check is: a small function that returns what it found, or raises a finding.

The boot waits for what must be right, and only a moment for what merely should be.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Annotated, Any, NamedTuple

from miglet.config.settings import Settings
from miglet.errors import MigletError
from miglet.messages.codec import Fact, Keys, frozen_value
from miglet.messages.facts import CheckRow
from miglet.supervisor.children import ChildTask, RunningTask
from miglet.supervisor.privileges import TASK_USER, become, unprivileged_account
from miglet.supervisor.queues import Queue

#: From the settings and the monotonic time by which it must have ended.
Look = Callable[[Settings, float], str]


class Finding(MigletError):
    """Something is not as it should be; `hint` says what to do about it."""

    #: ``warn`` or ``fail``.
    status = "fail"

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.hint = hint


class Misconfiguration(Finding):
    """The machine cannot take jobs with this configuration or image."""

    category = "misconfig"


class Unavailable(Finding):
    """The machine cannot take jobs now; it may later."""

    category = "infrastructure"


class CheckWarning(Finding):
    """Jobs can run, but somebody should know."""

    status = "warn"
    category = ""


class Check(NamedTuple):
    """A check, and what it may cost the boot."""

    look: Look
    #: Seconds that it is waited for; None: as long as bootstrap.timeout allows. One
    #: with a limit can only warn: what it looks at is not needed for the start.
    seconds: float | None = None
    #: Whether it speaks to other machines: then it is not made as root.
    network: bool = False

    def kind(self) -> type[Finding]:
        """What it means when the check cannot be made, or does not end."""
        return Unavailable if self.seconds is None else CheckWarning


#: Every check by its id, filled as the modules beside this one are imported.
CHECKS: dict[str, Check] = {}


def check(look: Look) -> Look:
    """Register a function as the check of its name."""
    CHECKS[look.__name__] = Check(look)
    return look


def brief_check(seconds: float, network: bool = False) -> Callable[[Look], Look]:
    """Register a check that is not waited for any longer than so many seconds."""

    def register(look: Look) -> Look:
        CHECKS[look.__name__] = Check(look, seconds, network)
        return look

    return register


#: Seconds before the end of bootstrap.timeout at which a check counts as hung.
MARGIN_SECONDS = 1.0

#: Seconds that a check which keeps its deadline may be late with its answer.
LATE_SECONDS = 0.2

STATUSES = ("ok", "warn", "fail")

#: Names from files and servers stand in details: none may forge a line or a colour.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

Row = dict[str, Any]


@frozen_value
class NetworkChecked(Fact):
    """What the checks of the network have found."""

    rows: list[Annotated[dict[str, Any], Keys(CheckRow, closed=True)]]


def report(settings: Settings, checks: dict[str, Check] | None = None) -> list[Row]:
    """Each check's id, status, milliseconds, detail, hint and category.

    As root the checks of the network are made in a child that is not.
    """
    wanted = CHECKS if checks is None else checks
    if os.geteuid() != 0 or not unprivileged_account(TASK_USER):
        return rows_of(settings, wanted)
    network = {name: check for name, check in wanted.items() if check.network}
    task = ChildTask(
        name="network-checks",
        main=functools.partial(_check_network, settings, network),
        timeout_seconds=settings.bootstrap.timeout,
        fallback=NetworkChecked([]),
    )
    # Before there are threads: a fork would copy their locks.
    running = RunningTask(task)
    rows = {name: _hung(name, check, settings) for name, check in wanted.items()}
    local = {name: check for name, check in wanted.items() if not check.network}
    rows |= {row["id"]: row for row in rows_of(settings, local)}
    while not running.done:
        for fact in running.wait():
            if isinstance(fact, NetworkChecked):
                rows |= {
                    row["id"]: row
                    for row in fact.rows
                    # These checks only warn; another row would be a forgery.
                    if row["id"] in network and row["status"] != "fail"
                }
    return list(rows.values())


def _check_network(settings: Settings, checks: dict[str, Check], queue: Queue) -> None:
    become(TASK_USER)
    queue.put(NetworkChecked(rows_of(settings, checks)))


def rows_of(settings: Settings, wanted: dict[str, Check]) -> list[Row]:
    """What these checks have found, made side by side in this process."""
    answers: SimpleQueue[Row] = SimpleQueue()
    deadlines = {name: _deadline(check, settings) for name, check in wanted.items()}
    for name, check in wanted.items():
        target = (answers, name, check, settings, deadlines[name])
        threading.Thread(target=_answer, args=target, daemon=True).start()
    rows = {name: _hung(name, check, settings) for name, check in wanted.items()}
    while deadlines:
        left = max(deadlines.values()) + LATE_SECONDS - time.monotonic()
        try:
            row = answers.get(timeout=max(0.0, left))
        except Empty:
            break
        rows[row["id"]] = row
        del deadlines[row["id"]]
    return list(rows.values())


def _deadline(check: Check, settings: Settings) -> float:
    limit = settings.bootstrap.timeout
    most = max(limit / 2, limit - MARGIN_SECONDS)
    return time.monotonic() + min(most, check.seconds or most)


def _answer(
    answers: SimpleQueue[Row],
    name: str,
    check: Check,
    settings: Settings,
    deadline: float,
) -> None:
    """A check that breaks answers too: nobody may wait for it until the timeout."""
    broken = check.kind()("the check itself failed", "see MIGlet's log, and report it")
    row = {"id": name, "milliseconds": 0.0, **_findings_of(broken)}
    try:
        row = outcome(name, check, settings, deadline)
    finally:
        answers.put(row)


def outcome(name: str, check: Check, settings: Settings, deadline: float) -> Row:
    """What one check found, and how long it took."""
    began = time.monotonic()
    row: Row = {"id": name, "status": "ok", "hint": "", "category": ""}
    try:
        row["detail"] = check.look(settings, deadline)
    except Finding as finding:
        row |= _findings_of(finding)
    except OSError as error:
        hint = "can MIGlet's user reach it?"
        row |= _findings_of(check.kind()(f"cannot be checked: {error}", hint))
    row["milliseconds"] = round((time.monotonic() - began) * 1000, 1)
    return row


def _findings_of(finding: Finding) -> Row:
    return {
        "status": finding.status,
        "detail": str(finding),
        "hint": finding.hint,
        "category": finding.category,
    }


def _hung(name: str, check: Check, settings: Settings) -> Row:
    """What is said of a check that never answers."""
    limit = settings.bootstrap.timeout
    seconds = min(limit, check.seconds or limit)
    kind = check.kind()
    hint = "see bootstrap.timeout" if kind is Unavailable else "the start goes on"
    hung = kind(f"no answer within {seconds:g} s", hint)
    return {"id": name, "milliseconds": seconds * 1000, **_findings_of(hung)}


def table(rows: list[Row]) -> str:
    """The report for people: a line a check, one more for each hint, and a count."""
    width = max((len(row["id"]) for row in rows), default=0)
    lines = []
    for row in rows:
        took = f"{row['milliseconds']:.0f} ms"
        place = f"{row['status']:<4}  {row['id']:<{width}}  {took:>8}  "
        lines.append(place + _printable(row["detail"]))
        if row["hint"]:
            lines.append(f"{'':<{len(place)}}-> {_printable(row['hint'])}")
    return "\n".join([*lines, "", _closing(rows)])


def _printable(text: str) -> str:
    return CONTROL.sub(" ", text)


def _closing(rows: list[Row]) -> str:
    counts = {name: sum(row["status"] == name for row in rows) for name in STATUSES}
    summary = ", ".join(f"{number} {name}" for name, number in counts.items())
    checks = "1 check" if len(rows) == 1 else f"{len(rows)} checks"
    can = "cannot" if counts["fail"] else "can"
    return f"{checks}: {summary}. This machine {can} take jobs."
