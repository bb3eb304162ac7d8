"""What our job hooks report, and the folder that they report to.

The hooks are `etc/hooks/*.sh`; the folder belongs to the runner's user, so everything
in it may be forged: a report is a plain, small, flat JSON object or it is refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from miglet.errors import RunnerError
from miglet.job import signs
from miglet.job.signs import Sign, clip, identity_of
from miglet.job.tail import readable
from miglet.messages.codec import Value, frozen_value
from miglet.messages.events import JobIdentity
from miglet.runner.installation import may, named
from miglet.safefile import NotPlain, open_folder, open_plain, read_small
from miglet.supervisor.privileges import Account

log = logging.getLogger(__name__)

#: Where the hooks are installed with the package.
SCRIPTS = Path(__file__).with_name("hooks")
STARTED, COMPLETED = "job-started", "job-completed"
LIMIT_BYTES = 65536

#: The runner's variables for hooks, and our script for each.
HOOK_VARIABLES = {
    "ACTIONS_RUNNER_HOOK_JOB_STARTED": "job-started.sh",
    "ACTIONS_RUNNER_HOOK_JOB_COMPLETED": "job-completed.sh",
}

_ENDING = b"}\n"
_MOST_ROUNDS = 100_000
_TIME = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?\Z")
#: The hook's environment (docs.github.com, "Default environment variables").
_VARIABLES = {
    "run_id": "GITHUB_RUN_ID",
    "repository": "GITHUB_REPOSITORY",
    "workflow": "GITHUB_WORKFLOW",
    "ref": "GITHUB_REF",
    "commit": "GITHUB_SHA",
    "run_attempt": "GITHUB_RUN_ATTEMPT",
    "actor": "GITHUB_ACTOR",
    "event_name": "GITHUB_EVENT_NAME",
}


class JobDirectoryUnusable(RunnerError):
    """The folder for the hooks' reports cannot be made."""

    category = "infrastructure"


@frozen_value
class HookReport(Value):
    """What a hook reported. `at` is its own wall time; None if that is no time."""

    at: float | None
    identity: JobIdentity


@frozen_value
class Refusal(Value):
    """Why what lies there is not believed."""

    reason: str


#: What a report is while it is being written, and for ever where the disk was full.
INCOMPLETE = Refusal("is not complete")


def read_report(folder: int, name: str) -> HookReport | Refusal | None:
    """The report `name` (without `.json`) in the open `folder`; never blocks.

    None while there is none.
    """
    try:
        descriptor = open_plain(f"{name}.json", folder)
    except FileNotFoundError:
        return None
    except NotPlain as error:
        return Refusal(str(error))
    except OSError as error:
        return Refusal(f"cannot be opened: {error.strerror}")
    try:
        reason = _why_refused(os.fstat(descriptor), os.fstat(folder))
        raw = b"" if reason else os.read(descriptor, LIMIT_BYTES)
    finally:
        os.close(descriptor)
    return Refusal(reason) if reason else _parse(raw)


def _why_refused(status: os.stat_result, folder: os.stat_result) -> str:
    if status.st_size > LIMIT_BYTES:
        return f"is larger than {LIMIT_BYTES} bytes"
    if status.st_uid != folder.st_uid:
        return f"belongs to uid {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by others"
    return ""


def _parse(raw: bytes) -> HookReport | Refusal:
    if not raw or (raw.startswith(b"{") and not raw.endswith(_ENDING)):
        return INCOMPLETE
    try:
        values = json.loads(raw.decode(), parse_constant=_no_json)
    except UnicodeDecodeError:
        return Refusal("is not UTF-8")
    except RecursionError:
        return Refusal("is nested too deeply")
    except ValueError:
        return Refusal("is not JSON")
    if not isinstance(values, dict) or not all(
        isinstance(value, str) for value in values.values()
    ):
        return Refusal("is not a JSON object of strings")
    return _to_report({key: _decode(value) for key, value in values.items()})


def _no_json(constant: str) -> NoReturn:
    raise ValueError(constant)


def _decode(value: str) -> str:
    """The text meant: our hooks write each byte as one character."""
    with contextlib.suppress(UnicodeEncodeError):
        return readable(value.encode("latin-1"))
    return readable(value.encode("utf-8", "replace"))


def _to_report(values: dict[str, str]) -> HookReport:
    at = values.get("at", "")
    identity = identity_of({key: values.get(v) for key, v in _VARIABLES.items()})
    return HookReport(float(at) if _TIME.match(at) else None, identity)


def closed(folder: Path, account: Account | None) -> str:
    """Which folder on the way keeps `account` out; empty where none does."""
    for place in [*reversed(folder.parents), folder]:
        if not may(place, account, os.X_OK):
            return f"{named(account)} may not enter {place}"
    return ""


def unreadable(scripts: Path, account: Account | None) -> str:
    """Why `account` cannot run the hooks in this folder; empty where it can."""
    if reason := closed(scripts, account):
        return reason
    for script in sorted(scripts.glob("*.sh")):
        if not may(script, account, os.R_OK):
            return f"{named(account)} may not read {script}"
    return ""


def replaced(runner: Path, scripts: Path) -> str:
    """Which hook of ours the runner's `.env` replaces; empty where none.

    The Listener reads that file at its start, over its environment (Program.cs).
    """
    try:
        lines = read_small(runner / ".env", LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return ""
    for line in lines.splitlines():
        key, _, value = line.partition("=")
        ours = HOOK_VARIABLES.get(key)
        if ours and value != str(scripts / ours):
            return f"{runner / '.env'} sets {key}={readable(value.encode())[:200]}"
    return ""


class HookReports:
    """The two reports of a run; each, or why it is refused, is returned once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left: dict[str, type[Sign]] = {
            STARTED: signs.HookStarted,
            COMPLETED: signs.HookCompleted,
        }

    def read(self) -> list[Sign]:
        """The signs in the reports that have come since the last call."""
        return self._collect(INCOMPLETE)

    def finish(self) -> list[Sign]:
        """What is to be said of the rest, when no hook runs any more."""
        return self._collect(None)

    def _collect(self, incomplete: Refusal | None) -> list[Sign]:
        try:
            folder = open_folder(self._path)
        except OSError:
            return []
        try:
            changed = os.fstat(folder).st_mtime
            reports = [(name, read_report(folder, name)) for name in self._left]
        finally:
            os.close(folder)
        return [
            sign
            for name, report in reports
            if report is not None and report is not incomplete
            for sign in self._signs(name, report, changed)
        ]

    def _signs(
        self, name: str, report: HookReport | Refusal, changed: float
    ) -> Iterator[Sign]:
        kind = self._left.pop(name)
        if isinstance(report, Refusal):
            text = clip(f"{name}.json {report.reason}")
            log.warning("job hook not believed: %s", text)
            yield signs.HookRefused(changed, "hook", text)
            return
        at = changed if report.at is None else report.at
        if report.identity != JobIdentity():
            yield signs.JobIdentified(at, "hook", report.identity)
        yield kind(at, "hook")


def prepare(directory: Path, account: Account | None) -> None:
    """Make `directory` new and empty, 0700, the account's own; before each run.

    What lay there is put aside first, so that nothing the last job left running can
    write into the new one. The parent folder must be ours. Raises
    JobDirectoryUnusable.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        _let_in(directory.parent, account)
        with contextlib.suppress(FileNotFoundError):
            directory.rename(
                directory.with_name(f"{_set_aside_prefix(directory)}{uuid.uuid4()}")
            )
        # First, since the last job may have filled the file system.
        _remove_set_aside(directory)
        directory.mkdir(0o700)
        directory.chmod(0o700)
        if account and os.geteuid() == 0:
            os.chown(directory, account.uid, account.gid)
    except OSError as error:
        raise JobDirectoryUnusable(f"cannot make {directory}: {error}") from error


def _let_in(folder: Path, account: Account | None) -> None:
    """Let the runner's user pass through a folder of ours, whatever our umask was."""
    found = folder.stat()
    if found.st_uid == os.geteuid() and not may(folder, account, os.X_OK):
        folder.chmod(found.st_mode | 0o111)


def _set_aside_prefix(directory: Path) -> str:
    return f".{directory.name}-"


def _remove_set_aside(directory: Path) -> None:
    """Delete what was put aside; what resists stays for the next time."""
    for old in directory.parent.glob(f"{_set_aside_prefix(directory)}*"):
        try:
            _remove_tree(old)
        except OSError as error:
            log.warning("could not delete %s: %s", old, error)


def _remove_tree(path: Path) -> None:
    """Delete a tree however deep, with two descriptors and without recursion.

    Folders in it are emptied into the topmost one, by names relative to descriptors;
    a symbolic link is deleted, never followed.
    """
    if not stat.S_ISDIR(path.lstat().st_mode):
        path.unlink()
        return
    top = open_folder(path)
    try:
        for _ in range(_MOST_ROUNDS):
            names = os.listdir(top)
            if not names:
                break
            for name in names:
                _remove_entry(top, name)
    finally:
        os.close(top)
    path.rmdir()


def _remove_entry(top: int, name: str) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=top)
        return
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(name, flags, dir_fd=top)
    try:
        for child in os.listdir(folder):
            os.rename(child, str(uuid.uuid4()), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
